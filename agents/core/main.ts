/** agent-core: owns the wanted state. Invariant: a spec is persisted before it is acted on. */
import { systemClock } from "#common/clock.ts";
import { helpText } from "#common/config.ts";
import { createLog } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import { startServer } from "#common/rpc/grpc.ts";
import { EtcdStore } from "#common/store/etcd.ts";
import { clusterPlace } from "#common/store/keys.ts";
import { kubeSystemUid } from "#common/store/kube_uid.ts";
import { grpcConnector } from "./engine/grpc_client.ts";
import { createCore } from "./mod.ts";
import { CORE_OPTIONS, coreConfig } from "./options.ts";

const log = createLog("agent-core");

runMain(log, async () => {
  const config = coreConfig(process.argv.slice(2), process.env);
  if (config.help) {
    process.stdout.write(helpText("agent-core", CORE_OPTIONS));
    return;
  }
  const signal = shutdownSignal();
  const clock = systemClock;
  const store = new EtcdStore({
    endpoints: config.store,
    timeoutMs: config.storeTimeoutMs,
    clock,
    log,
  });
  const agent = await createCore({
    config,
    clock,
    random: systemRandom,
    log,
    store,
    place: await clusterPlace(process.env, () => kubeSystemUid(process.env)),
    connect: grpcConnector({ timeouts: config, clock }),
    instanceName: process.env["MY_POD_NAME"] ?? "",
    signal,
  });
  const server = await startServer(config.grpcAddress, agent.services, { clock });
  log.info("serving", { address: config.grpcAddress });
  try {
    await agent.run();
  } finally {
    await server.close();
    await store.close();
  }
  log.info("stopped");
});
