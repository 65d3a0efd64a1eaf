/**
 * This process's own part of loopback: addresses and ports that no other test file takes, so that files run at once.
 *
 * Invariant: the part is claimed by listening on its last port for as long as this process lives; whoever comes upon a
 * claimed one takes the next, and a killed process leaves no claim.
 */
import net from "node:net";

const SLOTS = 500;
/** Below those of outgoing connections, and of the control planes of hack/cluster/kube. */
const FIRST_PORT = 10_000;
const PORTS_PER_SLOT = 20;
const FIRST_NETWORK = 80;

const portOf = (slot: number): number => FIRST_PORT + slot * PORTS_PER_SLOT;

function claims(slot: number): Promise<boolean> {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    const port = portOf(slot) + PORTS_PER_SLOT - 1;
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => {
      server.unref();
      resolve(true);
    });
  });
}

async function claim(): Promise<number> {
  for (let turn = 0; turn < SLOTS; turn++) {
    const candidate = (process.pid + turn) % SLOTS;
    if (await claims(candidate)) return candidate;
  }
  throw new Error(
    `Cannot claim ports for this test: all ${SLOTS} parts from ${FIRST_PORT} on are taken; next: end what listens there`,
  );
}

const slot = await claim();

/** The first of this process's own ports. */
export const firstPort = portOf(slot);

let addresses = 0;

/** An address that nobody else uses; another one each time. */
export function loopbackAddress(): string {
  addresses += 1;
  return `127.${FIRST_NETWORK + (slot >> 8)}.${slot & 255}.${addresses}`;
}
