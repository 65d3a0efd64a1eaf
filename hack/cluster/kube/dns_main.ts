/**
 * The DNS server of a cluster: answers for Services and StatefulSet pods, from the API server's Services and Endpoints.
 * Usage: dns_main.ts --kubeconfig=FILE --listen=ADDRESS   (port 53; runs in the cluster's network namespace)
 * Why: Debian has no CoreDNS; pods expect theirs behind the kube-dns Service.
 * Invariants: answers come from the last state seen, also while the API server is away; a name outside the cluster
 * does not exist, since the cluster has no way out.
 */
import dgram from "node:dgram";
import net from "node:net";
import { parseArgs } from "node:util";
import { systemClock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { createLog } from "#common/log.ts";
import { buildZone, type Endpoints, lookUp, type Service, type Zone } from "./dns_records.ts";
import { respond, UDP_BYTES_MAX } from "./dns_wire.ts";
import { readKubeconfig } from "./pki.ts";

const DOMAIN = "cluster.local";
const PORT = 53;
const PAUSE_MS = 500;
const WATCH_SECONDS = 300;
const TCP_IDLE_MS = 10_000;
const TCP_BYTES_MAX = 65_535;

const text = { type: "string" } as const;
const { values } = parseArgs({ options: { kubeconfig: text, listen: text } });
const { kubeconfig, listen } = values;
if (kubeconfig === undefined || listen === undefined)
  throw new Error("Usage: dns_main.ts --kubeconfig=FILE --listen=ADDRESS");

const log = createLog("cluster-dns");
const { signal } = new AbortController(); // runs until it is killed
const client = new KubeClient(readKubeconfig(kubeconfig));
const services = new Map<string, Service>();
const endpoints = new Map<string, Endpoints>();
let zone: Zone = new Map();
const rebuild = () => {
  zone = buildZone(services.values(), endpoints.values(), DOMAIN);
};

interface Listed<T> {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly T[];
}

/** Keeps `objects` like the collection at `path`, for ever. */
async function follow<T extends Service | Endpoints>(
  path: string,
  objects: Map<string, T>,
): Promise<never> {
  const keyOf = ({ metadata }: T) => `${metadata.namespace}/${metadata.name}`;
  for (;;) {
    try {
      const list = (await client.get(path, { signal })) as Listed<T>; // the API server's own schema
      objects.clear();
      for (const item of list.items) objects.set(keyOf(item), item);
      rebuild();
      let { resourceVersion } = list.metadata;
      for (;;) {
        const from = { resourceVersion, timeoutSec: WATCH_SECONDS, signal };
        for await (const event of client.watch(path, from)) {
          const object = event.object as T & { metadata: { resourceVersion: string } }; // as above
          resourceVersion = object.metadata.resourceVersion;
          if (event.type === "BOOKMARK") continue;
          if (event.type === "DELETED") objects.delete(keyOf(object));
          else objects.set(keyOf(object), object);
          rebuild();
        }
      }
    } catch (error) {
      log.info("listing again", { path, error: errorMessage(error) });
      await systemClock.sleep(PAUSE_MS);
    }
  }
}

const answer = (message: Buffer, bytesMax: number) =>
  respond(message, (name, type) => lookUp(zone, name, type), bytesMax);

const udp = dgram.createSocket("udp4");
udp.on("message", (message, from) => {
  const response = answer(message, UDP_BYTES_MAX);
  if (response !== null) udp.send(response, from.port, from.address);
});

/** Over TCP each message has its length in front. */
const tcp = net.createServer((socket) => {
  let rest = Buffer.alloc(0);
  socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
  socket.on("error", () => socket.destroy()); // the client is gone; there is nobody to tell
  socket.on("data", (part) => {
    rest = Buffer.concat([rest, part]);
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const end = 2 + rest.readUInt16BE(0);
      const response = answer(rest.subarray(2, end), TCP_BYTES_MAX);
      rest = rest.subarray(end);
      if (response === null) {
        socket.destroy();
        return;
      }
      const length = Buffer.alloc(2);
      length.writeUInt16BE(response.length);
      socket.write(Buffer.concat([length, response]));
    }
  });
});

const bound = (emitter: dgram.Socket | net.Server) =>
  new Promise((resolve, reject) => {
    emitter.once("listening", () => resolve(null));
    emitter.once("error", reject);
  });
const both = Promise.all([bound(udp), bound(tcp)]);
udp.bind(PORT, listen);
tcp.listen(PORT, listen);
await both;
log.info("listening", { address: listen, port: PORT });
await Promise.all([follow("/api/v1/services", services), follow("/api/v1/endpoints", endpoints)]);
