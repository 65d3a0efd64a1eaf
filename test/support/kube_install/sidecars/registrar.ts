/**
 * Stand-in for csi-node-driver-registrar: tells the kubelet of a CSI driver, by the kubelet's plugin registration
 * protocol (version v1): a socket in the folder that the kubelet watches, on which it asks who is there.
 *
 * The two messages are small enough to be encoded here by their field numbers; nothing but gRPC is loaded, because the
 * container has 50 MiB.
 * Invariant: as the real one, it ends with an error when the kubelet refuses the driver, and removes its socket.
 */
import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { Client, credentials, Server, ServerCredentials } from "@grpc/grpc-js";
import { tolerantConnection } from "#common/rpc/authority.ts";
import { parseFlags } from "./flags.ts";

const REGISTRATION_DIR = "/registration";
const CONNECT_MS = 60_000;
const CALL_MS = 10_000;

/** A length-delimited field: a string or a message. Texts here are far below 128 bytes or take two length bytes. */
export function textField(number: number, text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length >= 1 << 14) throw new Error("text too long");
  const length =
    bytes.length < 128 ? [bytes.length] : [(bytes.length & 127) | 128, bytes.length >> 7];
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes]);
}

function varint(bytes: Buffer, at: number): [value: number, next: number] {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++] ?? 0;
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) return [value, at];
  }
}

/** Fields of a message made of texts and numbers. */
export function readFields(bytes: Buffer): Map<number, string | number> {
  const fields = new Map<number, string | number>();
  for (let at = 0; at < bytes.length; ) {
    const [tag, afterTag] = varint(bytes, at);
    const [value, afterValue] = varint(bytes, afterTag);
    const isText = (tag & 7) === 2;
    const end = isText ? afterValue + value : afterValue;
    fields.set(tag >> 3, isText ? bytes.toString("utf8", afterValue, end) : value);
    at = end;
  }
  return fields;
}

const asIs = (bytes: Buffer): Buffer => bytes;
const EMPTY = Buffer.alloc(0);

async function driverName(socket: string): Promise<string> {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1_000,
  });
  try {
    await new Promise<void>((resolve, reject) => {
      client.waitForReady(Date.now() + CONNECT_MS, (error) => (error ? reject(error) : resolve()));
    });
    const reply = await new Promise<Buffer>((resolve, reject) => {
      const deadline = Date.now() + CALL_MS;
      client.makeUnaryRequest(
        "/csi.v1.Identity/GetPluginInfo",
        asIs,
        asIs,
        EMPTY,
        { deadline },
        (error, value) =>
          error || !value ? reject(error ?? new Error("no reply")) : resolve(value),
      );
    });
    const name = readFields(reply).get(1);
    if (typeof name !== "string" || name === "") throw new Error("the driver has no name");
    return name;
  } finally {
    client.close();
  }
}

const unary = (service: string, method: string) => ({
  path: `/pluginregistration.${service}/${method}`,
  requestStream: false as const,
  responseStream: false as const,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
});

async function main(): Promise<void> {
  const flags = parseFlags(process.argv.slice(2), {
    v: "text",
    version: "bool",
    "csi-address": "text",
    "kubelet-registration-path": "text",
    "connection-timeout": "text",
    timeout: "text",
    "health-port": "text",
    "http-endpoint": "text",
  });
  const endpoint = flags["kubelet-registration-path"];
  if (endpoint === undefined) throw new Error("kubelet-registration-path is a required parameter");
  const name = await driverName(flags["csi-address"] ?? "/run/csi/socket");
  console.log(`CSI driver name: ${name}`);
  const socket = path.join(REGISTRATION_DIR, `${name}-reg.sock`);
  rmSync(socket, { force: true });
  const server = new Server();
  server.addService(
    {
      getInfo: unary("Registration", "GetInfo"),
      notifyRegistrationStatus: unary("Registration", "NotifyRegistrationStatus"),
    },
    {
      getInfo: (_call: unknown, callback: (error: null, reply: Buffer) => void) => {
        console.log("Received GetInfo call");
        const versions = textField(4, "1.0.0");
        callback(
          null,
          Buffer.concat([
            textField(1, "CSIPlugin"),
            textField(2, name),
            textField(3, endpoint),
            versions,
          ]),
        );
      },
      notifyRegistrationStatus: (
        call: { readonly request: Buffer },
        callback: (error: null, reply: Buffer) => void,
      ) => {
        const fields = readFields(call.request);
        const isRegistered = fields.get(1) === 1;
        console.log(`Received NotifyRegistrationStatus call: ${isRegistered}`);
        callback(null, EMPTY);
        if (isRegistered) return;
        console.error(`Registration process failed with error: ${fields.get(2) ?? ""}, restarting`);
        setTimeout(() => process.exit(1), 100); // after the reply has gone out
      },
    },
  );
  // Kubelets of this age send the socket's path as authority.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = createServer((peer) => injector.injectConnection(tolerantConnection(peer)));
  await new Promise<void>((resolve, reject) => {
    listener.once("error", reject);
    listener.listen(socket, resolve);
  });
  chmodSync(socket, 0o700);
  console.log(`Registration Server started at: ${socket}`);
  const stop = () => {
    rmSync(socket, { force: true });
    process.exit(0);
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
