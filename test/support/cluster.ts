/** A local cluster for one test: its folder, processes and writers are gone when the test ends. */
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Replica, Volume } from "#common/openapi/model.ts";
import { LocalCluster, type LocalClusterOptions, until } from "../../hack/cluster/local.ts";
import { differingMiB, digest, VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { clearOnSignal } from "./interrupts.ts";
import { firstPort, loopbackAddress } from "./slot.ts";

/** What a test context or a suite offers for clean-up. */
export interface Cleanup {
  after(callback: () => unknown): void;
}

/** User data starts here on each replica of a volume. */
export const REPLICA_DATA_OFFSET = 5 * 1024 * 1024;
/** Short periods, so that a test sees in a second what production does in ten. */
export const QUICK_CORE = [
  ...["--reconcile-period", "1s", "--reconcile-idle-period", "1s"],
  ...["--cache-period", "2s", "--deadline", "6s"],
];

/** A cluster's addresses and first port, such that test files can run side by side. */
export function ownPlace(
  engines: number,
): Required<Pick<LocalClusterOptions, "addresses" | "firstPort">> {
  return { addresses: Array.from({ length: engines }, loopbackAddress), firstPort };
}

export async function startCluster(
  t: Cleanup,
  options: Partial<Omit<LocalClusterOptions, "folder">> = {},
): Promise<LocalCluster> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  t.after(() => LocalCluster.clear(folder));
  clearOnSignal(folder);
  const { engines = 3 } = options;
  const cluster = await LocalCluster.create({
    ...{ folder, engines, diskMiB: 512, coreArgs: QUICK_CORE },
    ...ownPlace(engines),
    ...options,
  });
  await cluster.start();
  await cluster.createPools();
  return cluster;
}

export async function untilOnline(
  cluster: LocalCluster,
  volume: string,
  seconds = 120,
): Promise<Volume> {
  let last = "";
  try {
    return await until(
      `volume ${volume} Online`,
      async () => {
        const seen = await cluster.rest.volume(volume);
        last = JSON.stringify(seen.state);
        return seen.state.status === "Online" ? seen : null;
      },
      { seconds },
    );
  } catch (error) {
    throw new Error(`${cluster.explain(error).message}\nlast state: ${last}`);
  }
}

export async function untilStatus(
  cluster: LocalCluster,
  volume: string,
  status: string,
  seconds = 60,
): Promise<Volume> {
  return await until(
    `volume ${volume} ${status}`,
    async () => {
      const seen = await cluster.rest.volume(volume);
      return seen.state.status === status ? seen : null;
    },
    { seconds },
  );
}

/** A verifying writer that ends with the test. */
export function startWriter(t: Cleanup, args: readonly string[]): VerifyIo {
  const writer = new VerifyIo(["write", ...args]);
  t.after(() => writer.kill());
  return writer;
}

/**
 * Proves an unpublished volume: each replica holds every acknowledged write, and all are identical.
 * @throws naming the replica that does not
 */
export async function verifyReplicas(
  cluster: LocalCluster,
  bytes: number,
  journal: string,
  count = 3,
): Promise<void> {
  const replicas: Replica[] = await cluster.rest.replicas();
  if (replicas.length !== count)
    throw new Error(`Expected ${count} replicas, found ${replicas.length}`);
  let first: string[] | null = null;
  for (const replica of replicas) {
    const uri = await cluster.rest.shareReplica(replica);
    const at = ["--uri", uri, "--offset-bytes", String(REPLICA_DATA_OFFSET)];
    await VerifyIo.run(["verify", ...at, "--journal", journal]);
    const found = await digest(uri, bytes, REPLICA_DATA_OFFSET);
    first ??= found;
    const differs = differingMiB(first, found);
    if (differs.length > 0)
      throw new Error(`The replica on ${replica.node} differs in MiB ${differs.join(", ")}`);
    await cluster.rest.unshareReplica(replica);
  }
}
