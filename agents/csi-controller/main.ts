/** csi-controller: the CSI controller plugin. Turns CSI calls into REST calls; holds no state of its own. */

import { systemClock } from "#common/clock.ts";
import { helpText, parseOptions } from "#common/config.ts";
import { VolumeGuard } from "#common/csi/guard.ts";
import { identityService, serveSocket } from "#common/csi/serve.ts";
import { createLog } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import packageJson from "../../package.json" with { type: "json" };
import { PvGarbageCollector } from "./gc.ts";
import { isInKubernetes, kubePvs } from "./kube_pvs.ts";
import { CONTROLLER_OPTIONS, concurrentRpcLimit } from "./options.ts";
import { RestApi } from "./rest.ts";
import { controllerService } from "./service.ts";

const log = createLog("csi-controller");
const clock = systemClock;

runMain(log, async () => {
  const options = parseOptions(CONTROLLER_OPTIONS, {
    args: process.argv.slice(2),
    env: process.env,
  });
  if (options.help) {
    process.stdout.write(helpText("csi-controller", CONTROLLER_OPTIONS));
    return;
  }
  const concurrentMax = concurrentRpcLimit(process.env);
  const signal = shutdownSignal();
  const rest = new RestApi({
    baseUrl: options["rest-endpoint"],
    timeoutMs: options["rest-timeout"],
    clock,
  });
  const guard = new VolumeGuard();
  const collector = isInKubernetes(process.env)
    ? new PvGarbageCollector({
        ...{ rest, guard, clock, random: systemRandom, log },
        source: await kubePvs(process.env, { clock, random: systemRandom, log }),
      })
    : null;
  if (!collector) log.info("not in Kubernetes: volumes are not collected");
  const controller = controllerService({
    rest,
    guard,
    log,
    nodeSegments: options["node-selector"],
    concurrentMax,
    onCreate: (uuid) => collector?.noteCreated(uuid),
  });
  const identity = identityService({
    version: packageJson.version,
    isReady: (caller) => rest.isReachable(caller),
  });
  const server = await serveSocket(options["csi-socket"], [identity, controller]);
  log.info("serving", { socket: options["csi-socket"], rest: options["rest-endpoint"] });
  const collecting = collector?.run(signal);
  if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  }
  await server.close();
  await collecting;
  log.info("stopped");
});
