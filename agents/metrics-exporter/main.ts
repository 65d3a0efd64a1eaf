/** metrics-exporter-pool: metrics of the io-engine in the same pod. Holds no state. */
import { systemClock } from "#common/clock.ts";
import { helpText } from "#common/config.ts";
import { createLog } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { Exporter } from "./exporter.ts";
import { EXPORTER_OPTIONS, readConfig } from "./options.ts";
import { grpcEngine } from "./reading.ts";
import { startMetricsServer } from "./server.ts";

const log = createLog("metrics-exporter-pool");

async function main(): Promise<void> {
  const config = readConfig(process.argv.slice(2), process.env);
  if (config === null) {
    process.stdout.write(helpText("metrics-exporter-pool", EXPORTER_OPTIONS));
    return;
  }
  const { listen, pollingMs, node } = config;
  const signal = shutdownSignal();
  const engine = grpcEngine(config.engine, log);
  const exporter = new Exporter({ engine, node, pollingMs, clock: systemClock, log });
  const server = await startMetricsServer(exporter, { listen, log, clock: systemClock });
  log.info("listening", { host: listen.host, port: server.port, engine: config.engine });
  await exporter.run(signal);
  await server.close();
  engine.close();
  log.info("stopped");
}

runMain(log, main);
