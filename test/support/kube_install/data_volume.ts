/**
 * A volume of three replicas that is claimed and attached through Kubernetes and written to by a verifying writer,
 * which plays the kernel's initiator: it connects to the very address that csi-node would be given.
 *
 * Invariants: what the writer has been told is stored is in its journal; prove() reads it back from every replica.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Replica } from "#common/openapi/model.ts";
import { until } from "../../../hack/cluster/local.ts";
import { differingMiB, digest, VerifyIo } from "../../../hack/quickstart/verify_io.ts";
import { type Cleanup, REPLICA_DATA_OFFSET } from "../cluster.ts";
import { claim } from "./documented.ts";
import { ENGINE_FOLDER, type Installation } from "./installation.ts";
import { untilBound } from "./quickstart.ts";

const CLAIM = "data";
const ATTACHMENT = "test-data";
const SIZE = "128Mi";
/** Written to; a part of the volume is the pool's own. */
const BYTES = 64 * 1024 * 1024;
/** Enough to notice each pause, little enough to leave the machine to the rest. */
const WRITES_PER_SECOND = 100;
/** Longer than an engine's restart may take on a busy machine. */
const RETRY_SECONDS = 240;

const attachment = (persistentVolume: string, node: string): string => `\
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata:
  name: ${ATTACHMENT}
spec:
  attacher: io.openebs.csi-mayastor
  nodeName: ${node}
  source:
    persistentVolumeName: ${persistentVolume}
`;

export class DataVolume {
  readonly uuid: string;
  /** Name of the node that serves the volume. */
  readonly target: string;
  readonly #installation: Installation;
  readonly #journal: string;
  readonly #writer: VerifyIo;

  private constructor(
    installation: Installation,
    from: { uuid: string; target: string; journal: string; writer: VerifyIo },
  ) {
    this.#installation = installation;
    this.uuid = from.uuid;
    this.target = from.target;
    this.#journal = from.journal;
    this.#writer = from.writer;
  }

  /** Claims, attaches to a node without agents, and starts to write. */
  static async create(t: Cleanup, installation: Installation): Promise<DataVolume> {
    const agents = await installation.nodeOf("agent-core");
    const target = installation.cluster.nodes.find(({ name }) => name !== agents)?.name;
    if (target === undefined) throw new Error("Cannot attach a volume: every node has agents");
    await installation.kubectl(["create", "-f", "-"], claim("mayastor-3", CLAIM, SIZE));
    const uuid = await untilBound(installation, CLAIM);
    await installation.kubectl(["create", "-f", "-"], attachment(`pvc-${uuid}`, target));
    const uri = await until(
      "the data volume attached",
      async () => {
        const { status } = await installation.json<{
          status: { attached: boolean; attachmentMetadata?: Record<string, string> };
        }>(["get", "volumeattachment", ATTACHMENT]);
        return status.attached && status.attachmentMetadata?.["uri"];
      },
      { seconds: 60, everyMs: 500 },
    );
    const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-journal-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const journal = path.join(folder, "journal");
    const writer = new VerifyIo([
      ...["write", "--uri", uri, "--journal", journal, "--bytes", String(BYTES)],
      ...["--rate", String(WRITES_PER_SECOND), "--qd", "4"],
      ...["--retry-seconds", String(RETRY_SECONDS)],
    ]);
    t.after(() => writer.kill());
    const volume = new DataVolume(installation, { uuid, target, journal, writer });
    await volume.untilWrites();
    return volume;
  }

  /** Waits until new writes are acknowledged. */
  async untilWrites(seconds = 60): Promise<void> {
    await this.#writer.acknowledges(100, seconds);
  }

  /** Detaches, then reads every acknowledged write back from every replica, and compares them whole. */
  async prove(): Promise<void> {
    const installation = this.#installation;
    this.#writer.stop();
    const { code, result, stderr } = await this.#writer.finished;
    assert.equal(code, 0, `the writer: ${JSON.stringify(result)} ${stderr}`);
    assert.ok((result?.writes ?? 0) > 0);
    await installation.kubectl(["delete", "volumeattachment", ATTACHMENT]);
    const { state } = await installation.volume(this.uuid);
    assert.equal(state.target, undefined, "unpublished with its attachment");
    const all = await installation.rest<readonly Replica[]>("GET", "/replicas");
    const own = all.filter(({ uuid }) => Object.hasOwn(state.replica_topology, uuid));
    assert.equal(own.length, 3);
    let first: readonly string[] | null = null;
    for (const { node, pool, uuid, share: shared } of own) {
      const share = `/nodes/${node}/pools/${pool}/replicas/${uuid}/share`;
      // With its nexus alone: a test host is let in by a new one.
      if (shared !== "none") await installation.rest("DELETE", share);
      const shareUri = await installation.rest<string>("PUT", `${share}/nvmf`, {});
      const holder = await this.#holder(node, uuid);
      const uri = holder === null ? shareUri : `${shareUri}&hostid=${holder}`;
      const at = ["--uri", uri, "--offset-bytes", String(REPLICA_DATA_OFFSET)];
      await VerifyIo.run(["verify", ...at, "--journal", this.#journal]);
      const found = await digest(uri, BYTES, REPLICA_DATA_OFFSET);
      first ??= found;
      assert.deepEqual(differingMiB(first, found), [], `the replica on ${node} differs`);
      await installation.rest("DELETE", share);
    }
  }

  /**
   * The host that a replica is reserved for: its last nexus, also after that is gone, so that it can never write again
   * unseen. Whoever wants to read the replica as it is has to be that host. Null for the nexus' own, local one.
   */
  async #holder(node: string, replica: string): Promise<string | null> {
    const file = `${ENGINE_FOLDER}/ptpl/pool/*/replica/${replica}.json`;
    const text = await this.#installation.cluster
      .node(node)
      .exec([...["sh", "-c", `cat ${file} 2>/dev/null || true`]]);
    if (text === "") return null;
    return (JSON.parse(text) as { holder_uuid: string }).holder_uuid; // written by our engine
  }

  async remove(): Promise<void> {
    await this.#installation.kubectl(["delete", "pvc", CLAIM]);
    await this.#installation.untilGone("the data volume", ["get", "pv", `pvc-${this.uuid}`]);
  }
}
