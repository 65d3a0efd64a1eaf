/**
 * Stand-in for csi-attacher: publishes and unpublishes volumes as VolumeAttachments come and go, by the finalizers,
 * annotations and status fields that the real one documents.
 *
 * Invariants: a volume is published only after both finalizers are stored, so that what was published is always
 * unpublished, also after a crash; they go only after that.
 */
import type { KubeClient } from "#common/kubernetes/client.ts";
import { shutdownSignal } from "#common/process.ts";
import { capability, type Driver, openDriver } from "./csi.ts";
import { parseFlags } from "./flags.ts";
import { Collection, connect, type KubeObject, Loop } from "./kube.ts";

const NODE_ID = "csi.alpha.kubernetes.io/node-id";
const ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments";
const VOLUMES = "/api/v1/persistentvolumes";

interface Attachment extends KubeObject {
  readonly spec: {
    readonly attacher: string;
    readonly nodeName: string;
    readonly source: { readonly persistentVolumeName?: string };
  };
  readonly status?: { readonly attached?: boolean };
}
interface Volume extends KubeObject {
  readonly spec: {
    readonly accessModes: readonly string[];
    readonly mountOptions?: readonly string[];
    readonly volumeMode?: string;
    readonly csi?: {
      readonly driver: string;
      readonly volumeHandle: string;
      readonly readOnly?: boolean;
      readonly fsType?: string;
      readonly volumeAttributes?: Readonly<Record<string, string>>;
    };
  };
}
interface CsiNode extends KubeObject {
  readonly spec: {
    readonly drivers?: readonly { readonly name: string; readonly nodeID: string }[] | null;
  };
}

class Attacher {
  readonly #client: KubeClient;
  readonly #driver: Driver;
  readonly #signal: AbortSignal;
  readonly #finalizer: string;
  readonly #loop = new Loop();
  readonly #attachments: Collection<Attachment>;
  readonly #volumes: Collection<Volume>;
  readonly #csiNodes: Collection<CsiNode>;

  constructor(client: KubeClient, driver: Driver, signal: AbortSignal) {
    this.#client = client;
    this.#driver = driver;
    this.#signal = signal;
    this.#finalizer = `external-attacher/${driver.name.replaceAll(/[^a-zA-Z0-9-]/g, "-")}`;
    const wake = () => this.#loop.wake();
    this.#attachments = new Collection(client, ATTACHMENTS, wake);
    this.#volumes = new Collection(client, VOLUMES, wake);
    this.#csiNodes = new Collection(client, "/apis/storage.k8s.io/v1/csinodes", wake);
  }

  async run(): Promise<void> {
    const collections = [this.#attachments, this.#volumes, this.#csiNodes];
    const watches = collections.map((collection) => collection.run(this.#signal));
    await Promise.all(collections.map(({ ready }) => ready));
    console.log("Starting CSI attacher");
    await this.#loop.run(() => this.#pass(), this.#signal);
    await Promise.all(watches);
  }

  async #pass(): Promise<boolean> {
    let isDone = true;
    for (const attachment of this.#attachments.all) {
      const { spec, status, metadata } = attachment;
      if (spec.attacher !== this.#driver.name) continue;
      const isLeaving = metadata.deletionTimestamp !== undefined;
      if (isLeaving ? !this.#holds(attachment) : status?.attached === true) continue;
      const work = isLeaving ? this.#detach(attachment) : this.#attach(attachment);
      isDone = (await this.#reported(attachment, isLeaving, work)) && isDone;
    }
    for (const volume of this.#volumes.all) {
      if (volume.metadata.deletionTimestamp === undefined || !this.#holds(volume)) continue;
      const { name } = volume.metadata;
      if (this.#attachments.all.some((a) => a.spec.source.persistentVolumeName === name)) continue;
      await this.#setFinalizer(this.#volumes, `${VOLUMES}/${name}`, volume, false);
    }
    return isDone;
  }

  #holds({ metadata }: KubeObject): boolean {
    return metadata.finalizers?.includes(this.#finalizer) ?? false;
  }

  /** Puts a failure where `kubectl describe` shows it. */
  async #reported(
    { metadata }: Attachment,
    isLeaving: boolean,
    work: Promise<void>,
  ): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      console.error(`${metadata.name}: ${message}`);
      const time = new Date().toISOString().replace(/\.\d+Z$/, "Z");
      const status = { [isLeaving ? "detachError" : "attachError"]: { message, time } };
      await this.#patchStatus(metadata.name, status).catch(() => {}); // the object may be gone
      return false;
    }
  }

  async #attach(attachment: Attachment): Promise<void> {
    const { spec, metadata } = attachment;
    const name = spec.source.persistentVolumeName ?? "";
    const volume = this.#volumes.objects.get(name);
    if (volume === undefined) throw new Error(`PersistentVolume ${name} is not there`);
    if (volume.metadata.deletionTimestamp !== undefined)
      throw new Error(`PersistentVolume ${name} is marked for deletion`);
    const csi = volume.spec.csi;
    if (csi === undefined) throw new Error(`PersistentVolume ${name} is no CSI volume`);
    const nodeId = this.#nodeId(spec.nodeName);
    await this.#setFinalizer(this.#volumes, `${VOLUMES}/${name}`, volume, true);
    const path = `${ATTACHMENTS}/${metadata.name}`;
    const current = await this.#setFinalizer(this.#attachments, path, attachment, true);
    if (current.metadata.annotations?.[NODE_ID] !== nodeId)
      await this.#patch(this.#attachments, path, {
        metadata: { annotations: { [NODE_ID]: nodeId } },
      });
    const { publishContext } = await this.#driver.controller.controllerPublishVolume(
      {
        volumeId: csi.volumeHandle,
        nodeId,
        volumeCapability: capability({
          accessMode: volume.spec.accessModes[0] ?? "ReadWriteOnce",
          volumeMode: volume.spec.volumeMode,
          fsType: csi.fsType ?? "",
          mountFlags: volume.spec.mountOptions,
        }),
        readonly: csi.readOnly ?? false,
        volumeContext: { ...csi.volumeAttributes },
      },
      { signal: this.#signal },
    );
    await this.#patchStatus(metadata.name, {
      attached: true,
      attachmentMetadata: publishContext,
      attachError: null,
    });
    console.log(`${metadata.name}: fully attached`);
  }

  async #detach(attachment: Attachment): Promise<void> {
    const { spec, metadata } = attachment;
    const volume = this.#volumes.objects.get(spec.source.persistentVolumeName ?? "");
    if (volume?.spec.csi === undefined) throw new Error("its PersistentVolume is not there");
    const nodeId = metadata.annotations?.[NODE_ID] ?? this.#nodeId(spec.nodeName);
    const volumeId = volume.spec.csi.volumeHandle;
    await this.#driver.controller.controllerUnpublishVolume(
      { volumeId, nodeId },
      { signal: this.#signal },
    );
    const current = await this.#patchStatus(metadata.name, { attached: false, detachError: null });
    const path = `${ATTACHMENTS}/${metadata.name}`;
    await this.#setFinalizer(this.#attachments, path, current, false);
    console.log(`${metadata.name}: fully detached`);
  }

  #nodeId(nodeName: string): string {
    const drivers = this.#csiNodes.objects.get(nodeName)?.spec.drivers ?? [];
    const found = drivers.find(({ name }) => name === this.#driver.name);
    if (found === undefined)
      throw new Error(`CSINode ${nodeName} does not contain driver ${this.#driver.name}`);
    return found.nodeID;
  }

  async #setFinalizer<T extends KubeObject>(
    collection: Collection<T>,
    path: string,
    object: T,
    isWanted: boolean,
  ): Promise<T> {
    if (this.#holds(object) === isWanted) return object;
    const others = (object.metadata.finalizers ?? []).filter((one) => one !== this.#finalizer);
    const finalizers = isWanted ? [...others, this.#finalizer] : others;
    // The version makes it fail rather than undo what somebody else has added meanwhile.
    const { resourceVersion } = object.metadata;
    return await this.#patch(collection, path, { metadata: { finalizers, resourceVersion } });
  }

  async #patch<T extends KubeObject>(
    collection: Collection<T>,
    path: string,
    body: object,
  ): Promise<T> {
    const patched = await this.#client.patch(path, body, { type: "merge", signal: this.#signal });
    return collection.put(patched);
  }

  async #patchStatus(name: string, status: object): Promise<Attachment> {
    return await this.#patch(this.#attachments, `${ATTACHMENTS}/${name}/status`, { status });
  }
}

async function main(): Promise<void> {
  const flags = parseFlags(process.argv.slice(2), {
    v: "text",
    version: "bool",
    "csi-address": "text",
    timeout: "text",
    "worker-threads": "text",
    "leader-election": "bool",
    "default-fstype": "text",
    "reconcile-sync": "text",
  });
  const signal = shutdownSignal();
  const driver = await openDriver(flags["csi-address"] ?? "/run/csi/socket");
  await new Attacher(await connect(), driver, signal).run();
  process.exit(0);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
