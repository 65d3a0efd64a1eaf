/**
 * The documentation's fio pod on a volume that the kernel's own initiator has mounted: runs fio and judges it.
 * Invariant: fio checks what it reads against what it wrote, and ends by itself on any I/O error.
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
import { type FioJob, judge, judgeStopped, STOP_FILE, UNTIL_STOPPED } from "./fio_run.ts";

/** Ends a run that nobody stops any more. */
const SECONDS_MAX = 3600;
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

  /** Runs fio for a time. Fails on any I/O error or wrong data. */
  async run(t: TestContext, seconds: number): Promise<void> {
    tell(t, judge(await this.#exec([...JOB, `--runtime=${seconds}`])));
  }

  /** Runs fio until `meanwhile` has happened; fails when it ended before, on any I/O error or wrong data. */
  async runDuring(t: TestContext, meanwhile: () => Promise<void>): Promise<void> {
    await this.#exec(["rm", "-f", STOP_FILE]);
    const stop = () => this.#exec(["touch", STOP_FILE]);
    const job = [...JOB, `--runtime=${SECONDS_MAX}`];
    const fio = this.#exec(["sh", "-c", UNTIL_STOPPED, "sh", STOP_FILE, ...job]);
    fio.catch(() => {}); // looked at below, after what happens meanwhile
    try {
      await meanwhile();
    } catch (error) {
      await stop().catch(() => {}); // the first error tells more
      throw error;
    }
    await stop();
    tell(t, judgeStopped(await fio));
  }

  async #exec(argv: readonly string[]): Promise<string> {
    return await this.#installation.kubectl(["exec", "fio", "--", ...argv]);
  }
}

function tell(t: TestContext, jobs: readonly FioJob[]): void {
  for (const { read, write } of jobs)
    t.diagnostic(`fio: ${read.iops.toFixed(0)} reads/s, ${write.iops.toFixed(0)} writes/s`);
}
