/** operator-diskpool: keeps DiskPool resources and pools alike. Several may run; one leads. */
import { hostname } from "node:os";
import { systemClock } from "#common/clock.ts";
import { helpText, parseOptions } from "#common/config.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { findConnection } from "#common/kubernetes/connection.ts";
import { LeaderElection } from "#common/kubernetes/leader.ts";
import { createLog } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import { DISKPOOL_OPERATOR_LEASE } from "#common/types/diskpool.ts";
import { runController } from "./controller.ts";
import { ensureCrd } from "./ensure_crd.ts";
import { kubeEvents, kubeResources } from "./kube_resources.ts";
import { OPERATOR_OPTIONS } from "./options.ts";
import { restPools } from "./rest_pools.ts";

const log = createLog("operator-diskpool");

async function main(): Promise<void> {
  const options = parseOptions(OPERATOR_OPTIONS, { args: process.argv.slice(2), env: process.env });
  if (options.help) {
    process.stdout.write(helpText("operator-diskpool", OPERATOR_OPTIONS));
    return;
  }
  const signal = shutdownSignal();
  const [clock, random] = [systemClock, systemRandom];
  const { namespace } = options;
  const client = new KubeClient(await findConnection(process.env, clock), { clock });
  const instance = process.env["MY_POD_NAME"] || hostname();
  try {
    await ensureCrd({ client, clock, log }, signal);
  } catch (error) {
    if (signal.aborted) return;
    throw error;
  }
  const election = new LeaderElection({
    client,
    namespace,
    name: DISKPOOL_OPERATOR_LEASE,
    identity: `${instance}_${random.uuid()}`, // a pod that starts anew must not take itself for its past
    clock,
    random,
    log,
  });
  const lead = (leading: AbortSignal) =>
    runController(
      {
        client,
        namespace,
        clock,
        random,
        log,
        pools: restPools(options.endpoint, { timeoutMs: options["request-timeout"], clock }),
        resources: kubeResources(client),
        events: kubeEvents(client, { clock, log, instance }),
        intervalMs: options.interval,
        validateDevices: !options["disable-device-validation"],
      },
      leading,
    );
  log.info("started", { server: client.server, namespace, rest: options.endpoint });
  await election.run(lead, signal);
  log.info("stopped");
}

runMain(log, main);
