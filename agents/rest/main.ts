/** api-rest: REST v0 in front of agent-core. Holds no state: any number of them may run. */
import { readFile } from "node:fs/promises";
import { systemClock } from "#common/clock.ts";
import { helpText, parseOptions } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { createLog } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { grpcTarget, openChannel } from "#common/rpc/grpc.ts";
import { Admission } from "#common/rpc/http_admission.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { makeVerifier, openVerifier, type Verifier } from "./auth.ts";
import { type KeyAndCertificate, selfSigned } from "./certificate.ts";
import { checkOptions, REST_OPTIONS, type RestOptions } from "./options.ts";
import { makeRestServer } from "./server.ts";

const CORE_PORT = 50051;
const log = createLog("api-rest");

async function readText(option: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const cause = error instanceof Error ? `: ${error.message}` : "";
    throw new SvcError("invalid-argument", `Cannot read the file of --${option}${cause}`, {
      cause: error,
    });
  }
}

async function certificateOf(options: RestOptions): Promise<KeyAndCertificate> {
  const { "cert-file": certFile, "key-file": keyFile } = options;
  if (certFile === null || keyFile === null) {
    return selfSigned("api-rest", { clock: systemClock, random: systemRandom });
  }
  const cert = await readText("cert-file", certFile);
  return { cert, key: await readText("key-file", keyFile) };
}

async function verifierOf({ jwk }: RestOptions): Promise<Verifier> {
  return jwk === null ? openVerifier : makeVerifier(await readText("jwk", jwk));
}

async function main(): Promise<void> {
  const options = parseOptions(REST_OPTIONS, { args: process.argv.slice(2), env: process.env });
  if (options.help) {
    process.stdout.write(helpText("api-rest", REST_OPTIONS));
    return;
  }
  checkOptions(options);
  const signal = shutdownSignal();
  const verifier = await verifierOf(options);
  const tls = await certificateOf(options);
  const channel = openChannel(grpcTarget(options["core-grpc"], CORE_PORT));
  const core = makeJsonCalls(channel, CORE_API, {
    timeoutMs: options["request-timeout"],
    ignoreFloors: options["no-min-timeouts"],
  });
  const admission = new Admission(systemClock);
  const shared = { core, verifier, log, clock: systemClock, admission };
  const listeners = [
    { server: makeRestServer({ ...shared, tls }), address: options.https, scheme: "https" },
    ...(options.http
      ? [
          {
            server: makeRestServer({ ...shared, tls: null }),
            address: options.http,
            scheme: "http",
          },
        ]
      : []),
  ];
  for (const { server, address, scheme } of listeners) {
    const port = await server.listen(address);
    log.info("listening", { scheme, host: address.host, port });
  }
  if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  }
  await Promise.all(listeners.map(({ server }) => server.close()));
  channel.close();
  log.info("stopped");
}

runMain(log, main);
