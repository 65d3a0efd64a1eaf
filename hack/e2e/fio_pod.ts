/**
 * The documentation's fio pod on a volume that the kernel's own initiator has mounted: runs fio and judges it.
 * Invariant: fio checks what it reads against what it wrote, and ends with a code other than zero on any I/O error.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import {
  CLAIM_NAME,
  COLUMNS,
  claim,
  FIO_POD,
  readTable,
  storageClass,
} from "../../test/support/kube_install/documented.ts";
import type { Installation } from "../../test/support/kube_install/installation.ts";
import { untilBound } from "../../test/support/kube_install/quickstart.ts";
import { until } from "../cluster/local.ts";

/** The documented benchmark; smaller, and verifying. */
const JOB = [
  ...["fio", "--name=benchtest", "--size=200m", "--filename=/volume/test", "--direct=1"],
  ...["--rw=randrw", "--ioengine=libaio", "--bs=4k", "--iodepth=16", "--time_based"],
  ...["--verify=crc32c", "--verify_fatal=1", "--continue_on_error=none", "--output-format=json"],
];

export class FioPod {
  readonly uuid: string;
  readonly #installation: Installation;

  private constructor(installation: Installation, uuid: string) {
    this.#installation = installation;
    this.uuid = uuid;
  }

  /** StorageClasses, claim and pod as documented, on three replicas; Running when it returns. */
  static async create(installation: Installation): Promise<FioPod> {
    for (const replicas of [1, 3] as const)
      await installation.kubectl(["create", "-f", "-"], storageClass(replicas));
    await installation.kubectl(["create", "-f", "-"], claim("mayastor-3"));
    const uuid = await untilBound(installation, CLAIM_NAME);
    await installation.kubectl(["apply", "-f", "-"], FIO_POD);
    await until(
      "the fio pod Running",
      async () => {
        const [row] = readTable(await installation.kubectl(["get", "pod", "fio"]), COLUMNS.pods);
        return row?.["STATUS"] === "Running";
      },
      { seconds: 180, everyMs: 1000 },
    ).catch(async (error: unknown) => {
      const events = await installation.kubectl(["describe", "pod", "fio"]);
      throw new Error(`${String(error)}\n${events}\n${await installation.explain()}`);
    });
    return new FioPod(installation, uuid);
  }

  /** Name of the node that serves the volume. */
  async target(): Promise<string> {
    const { state } = await this.#installation.volume(this.uuid);
    assert.ok(state.target, "the volume is published");
    return state.target.node;
  }

  /** Runs fio; `meanwhile` happens while it runs. Fails on any I/O error or wrong data. */
  async run(
    t: TestContext,
    seconds: number,
    meanwhile = async (): Promise<void> => {},
  ): Promise<void> {
    const job = [...JOB, `--runtime=${seconds}`];
    const fio = this.#installation.kubectl(["exec", "fio", "--", ...job]);
    fio.catch(() => {}); // looked at below, after what happens meanwhile
    await meanwhile();
    const { jobs } = JSON.parse(await fio) as {
      jobs: { error: number; read: { iops: number }; write: { iops: number } }[];
    }; // fio's documented output
    for (const { error, read, write } of jobs) {
      assert.equal(error, 0);
      assert.ok(write.iops > 0);
      t.diagnostic(`fio: ${read.iops.toFixed(0)} reads/s, ${write.iops.toFixed(0)} writes/s`);
    }
  }
}
