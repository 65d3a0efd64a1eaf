/**
 * io-engine: the data plane process of one storage node.
 *
 * Start: `node --import tsx engine/ts/main.ts [options]`; options as published (engine/ts/config.ts).
 * Add `--max-old-space-size=96 --max-semi-space-size=2` for a small resident set: no I/O data ever
 * enters JavaScript, so the heap stays tiny.
 * Invariants: calls are served only after the engine has started; a stop ends calls first, then tells
 * agent-core, then destroys nexuses (recorded as cleanly shut down) and unloads pools cleanly.
 */
import { systemClock } from "#common/clock.ts";
import { helpText } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { createLog, type Log } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import { type GrpcServer, startServer } from "#common/rpc/grpc.ts";
import { EtcdStore } from "#common/store/etcd.ts";
import { listBlockDevices } from "./block_devices.ts";
import { type Config, loadConfig, OPTIONS } from "./config.ts";
import { type EngineEvent, loadNative, type NativeEngine } from "./native.ts";
import { NexusInfoPersister } from "./persist.ts";
import { loadPools } from "./pool_config.ts";
import { PoolWatch } from "./pool_health.ts";
import { type Identity, Registration } from "./registration.ts";
import { bdevService } from "./services/bdev.ts";
import { hostService } from "./services/host.ts";
import { jsonService } from "./services/json.ts";
import { latencyService } from "./services/latency.ts";
import { nexusService } from "./services/nexus.ts";
import { poolService } from "./services/pool.ts";
import { poolHealthService } from "./services/pool_health.ts";
import { publicationService } from "./services/publication.ts";
import { replicaService } from "./services/replica.ts";
import { statsService } from "./services/stats.ts";
import { targetHostsService } from "./services/target_hosts.ts";
import { VERSION } from "./version.ts";

/** What agent-core is told: a wildcard address helps nobody, the target's does. */
function advertised(grpcAddress: string, port: number, targetAddress: string): string {
  const host = grpcAddress.slice(0, grpcAddress.lastIndexOf(":"));
  const wildcard = host === "0.0.0.0" || host === "[::]";
  return `${wildcard ? targetAddress : host}:${port}`;
}

/** Who hears that a nexus changed: the registration, once there is one. */
type News = { tell: () => void };

type Parts = {
  readonly config: Config;
  readonly engine: NativeEngine;
  readonly news: News;
  readonly log: Log;
};

function onEngineEvent(
  event: EngineEvent,
  { persister, news, log }: Pick<Parts, "news" | "log"> & { persister: NexusInfoPersister },
): void {
  switch (event.type) {
    case "put":
      persister.accept(event);
      return;
    case "log":
      log[event.level](event.message, event.fields);
      return;
    case "nexus-changed":
      log.debug("nexus changed", { "nexus.uuid": event.uuid });
      news.tell();
  }
}

async function serve({ config, engine, news, log }: Parts, stop: AbortSignal) {
  if (config.poolConfig !== null) await loadPools(config.poolConfig, { engine, log });
  const identity: { -readonly [Key in keyof Identity]: Identity[Key] } = {
    nodeName: config.nodeName,
    grpcEndpoint: config.grpcAddress,
    instanceUuid: systemRandom.uuid(),
    hostNqn: config.engine.hostNqn,
    anaEnabled: config.engine.anaEnabled,
  };
  const server: GrpcServer = await startServer(config.grpcAddress, [
    hostService({ engine, identity, listBlockDevices }),
    bdevService(engine),
    poolService(engine),
    poolHealthService(engine),
    replicaService(engine),
    nexusService(engine),
    statsService(engine),
    latencyService(engine),
    targetHostsService(engine),
    publicationService(engine),
    jsonService(),
  ]);
  identity.grpcEndpoint = advertised(config.grpcAddress, server.port, config.engine.targetAddress);
  log.info("serving", { "grpc.endpoint": identity.grpcEndpoint, "node.id": config.nodeName });
  const registration =
    config.registration === null
      ? null
      : new Registration({
          endpoint: config.registration,
          identity,
          periodMs: config.heartbeatMs,
          timeoutMs: config.heartbeatTimeoutMs,
          clock: systemClock,
          log,
        });
  registration?.start();
  news.tell = () => registration?.changed();
  const watch = new PoolWatch({ engine, clock: systemClock, log, changed: () => news.tell() });
  const watching = watch.run(stop);
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve(), { once: true });
  });
  log.info("stopping", { reason: String(stop.reason) });
  await server.close();
  await watching;
  await registration?.close();
}

async function main(log: Log): Promise<void> {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(helpText("io-engine", OPTIONS));
    return;
  }
  if (args.includes("--version") || args.includes("-V")) {
    process.stdout.write(`io-engine ${VERSION}\n`);
    return;
  }
  const stop = shutdownSignal();
  const config = loadConfig({ args, env: process.env });
  if (config.ignored.length > 0) {
    log.warn("options without effect here", { options: config.ignored });
  }
  const engine = loadNative();
  const store = config.store
    ? new EtcdStore({ ...config.store, endpoints: config.store.endpoint, log })
    : null;
  const persister = new NexusInfoPersister({
    store,
    attempts: config.store?.attempts ?? 1,
    clock: systemClock,
    log,
    answer: ({ id, failure, revision }) => engine.completePut(id, failure, revision),
  });
  if (!store) log.warn("no persistent store: NexusInfo is not persisted");
  const news: News = { tell: () => {} };
  await engine.start(config.engine, (event) => onEngineEvent(event, { persister, news, log }));
  try {
    await serve({ config, engine, news, log }, stop);
  } finally {
    persister.hurry();
    await stopEngine(engine, log);
    await persister.idle();
    await store?.close();
  }
  log.info("stopped");
}

/** A stop that could not finish everything is an error exit, not a hang. */
async function stopEngine(engine: NativeEngine, log: Log): Promise<void> {
  try {
    await engine.stop();
  } catch (error) {
    log.error("not stopped cleanly", { error });
    throw new SvcError("internal", "Cannot stop cleanly: see the log", { cause: error });
  }
}

const log = createLog("io-engine");
runMain(log, () => main(log));
