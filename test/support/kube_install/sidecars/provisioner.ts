/**
 * Stand-in for csi-provisioner: makes a volume and its PersistentVolume for each claim of the driver's classes, and
 * deletes both when the claim is gone, by the calls, names and annotations that the real one documents.
 *
 * Invariants: the volume's name comes from the claim's uid, so a repeat after a crash finds the same volume; a
 * PersistentVolume is deleted only after its volume is.
 */
import { isKind } from "#common/errors.ts";
import type { KubeClient } from "#common/kubernetes/client.ts";
import { shutdownSignal } from "#common/process.ts";
import { capability, type Driver, openDriver } from "./csi.ts";
import { parseFlags, parseGates } from "./flags.ts";
import { Collection, connect, type KubeObject, Loop, postEvent, remove } from "./kube.ts";

const COMPONENT = "csi-provisioner";
const SELECTED_NODE = "volume.kubernetes.io/selected-node";
/** The volume controller of Kubernetes puts one of these on a claim: whose work it is. */
const PROVISIONER_OF_CLAIM = [
  "volume.kubernetes.io/storage-provisioner",
  "volume.beta.kubernetes.io/storage-provisioner",
];
const PROVISIONED_BY = "pv.kubernetes.io/provisioned-by";
const RESERVED = "csi.storage.k8s.io/";
const FS_TYPE = `${RESERVED}fstype`;

interface Claim extends KubeObject {
  readonly spec: {
    readonly accessModes: readonly string[];
    readonly storageClassName?: string;
    readonly volumeMode?: string;
    readonly volumeName?: string;
    readonly resources: { readonly requests: { readonly storage: string } };
  };
  readonly status?: { readonly phase?: string };
}
interface StorageClass extends KubeObject {
  readonly provisioner: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly reclaimPolicy?: string;
  readonly mountOptions?: readonly string[];
  readonly volumeBindingMode?: string;
}
export interface Volume extends KubeObject {
  readonly spec: {
    readonly csi?: { readonly driver: string; readonly volumeHandle: string };
    readonly persistentVolumeReclaimPolicy?: string;
  };
  readonly status?: { readonly phase?: string };
}
interface CsiNode extends KubeObject {
  readonly spec: {
    readonly drivers?:
      | readonly { readonly name: string; readonly topologyKeys?: readonly string[] }[]
      | null;
  };
}
interface Attachment extends KubeObject {
  readonly spec: {
    readonly nodeName: string;
    readonly source: { readonly persistentVolumeName?: string };
  };
}

const UNITS: Readonly<Record<string, bigint>> = {
  "": 1n,
  k: 1000n,
  M: 1000n ** 2n,
  G: 1000n ** 3n,
  T: 1000n ** 4n,
  Ki: 1024n,
  Mi: 1024n ** 2n,
  Gi: 1024n ** 3n,
  Ti: 1024n ** 4n,
};

/** `1Gi` -> bytes. @throws for what is no whole quantity */
export function quantity(text: string): bigint {
  const [, number = "", unit = "?"] = /^(\d+)([A-Za-z]*)$/.exec(text) ?? [];
  const factor = UNITS[unit];
  if (number === "" || factor === undefined) throw new Error(`"${text}" is no whole quantity`);
  return BigInt(number) * factor;
}

/** As Kubernetes writes sizes: the largest binary unit that divides it. */
export function quantityText(bytes: bigint): string {
  for (const unit of ["Ti", "Gi", "Mi", "Ki"] as const) {
    const factor = UNITS[unit] ?? 1n;
    if (bytes >= factor && bytes % factor === 0n) return `${bytes / factor}${unit}`;
  }
  return String(bytes);
}

type Segments = Readonly<Record<string, string>>;

/** Topology of each node that runs the driver; the selected node's comes first. */
export function topologies(
  driver: string,
  selected: string | undefined,
  { csiNodes, nodes }: { csiNodes: readonly CsiNode[]; nodes: ReadonlyMap<string, KubeObject> },
): Segments[] {
  const found: { readonly node: string; readonly segments: Segments }[] = [];
  for (const { metadata, spec } of csiNodes) {
    const keys = spec.drivers?.find(({ name }) => name === driver)?.topologyKeys ?? [];
    const labels = nodes.get(metadata.name)?.metadata.labels ?? {};
    const pairs = keys.map((key) => [key, labels[key]] as const);
    if (pairs.length === 0 || pairs.some(([, value]) => value === undefined)) continue;
    const segments = Object.fromEntries(pairs) as Segments; // no value is missing, as just seen
    found.push({ node: metadata.name, segments });
  }
  const rank = (node: string) => (node === selected ? 0 : 1);
  return found.sort((a, b) => rank(a.node) - rank(b.node)).map(({ segments }) => segments);
}

class Provisioner {
  readonly #client: KubeClient;
  readonly #driver: Driver;
  readonly #signal: AbortSignal;
  readonly #defaultFsType: string;
  readonly #withMetadata: boolean;
  readonly #withTopology: boolean;
  readonly #loop = new Loop();
  readonly #claims: Collection<Claim>;
  readonly #classes: Collection<StorageClass>;
  readonly #volumes: Collection<Volume>;
  readonly #csiNodes: Collection<CsiNode>;
  readonly #nodes: Collection<KubeObject>;
  readonly #attachments: Collection<Attachment>;
  /** What was last said about an object, so that a failure that lasts is told once. */
  readonly #told = new Map<string, string>();

  constructor(
    client: KubeClient,
    driver: Driver,
    options: {
      readonly signal: AbortSignal;
      readonly defaultFsType: string;
      readonly withMetadata: boolean;
      readonly withTopology: boolean;
    },
  ) {
    this.#client = client;
    this.#driver = driver;
    this.#signal = options.signal;
    this.#defaultFsType = options.defaultFsType;
    this.#withMetadata = options.withMetadata;
    this.#withTopology = options.withTopology;
    const wake = () => this.#loop.wake();
    this.#claims = new Collection(client, "/api/v1/persistentvolumeclaims", wake);
    this.#classes = new Collection(client, "/apis/storage.k8s.io/v1/storageclasses", wake);
    this.#volumes = new Collection(client, "/api/v1/persistentvolumes", wake);
    this.#csiNodes = new Collection(client, "/apis/storage.k8s.io/v1/csinodes", wake);
    this.#nodes = new Collection(client, "/api/v1/nodes", wake);
    this.#attachments = new Collection(client, "/apis/storage.k8s.io/v1/volumeattachments", wake);
  }

  async run(): Promise<void> {
    const collections = [
      ...[this.#claims, this.#classes, this.#volumes],
      ...[this.#csiNodes, this.#nodes, this.#attachments],
    ];
    const watches = collections.map((collection) => collection.run(this.#signal));
    await Promise.all(collections.map(({ ready }) => ready));
    console.log("Started provisioner controller");
    await this.#loop.run(() => this.#pass(), this.#signal);
    await Promise.all(watches);
  }

  async #pass(): Promise<boolean> {
    let isDone = true;
    for (const claim of this.#claims.all) {
      const storageClass = this.#classOf(claim);
      if (storageClass !== null) isDone = (await this.#provision(claim, storageClass)) && isDone;
    }
    for (const volume of this.#volumes.all) {
      if (this.#isToDelete(volume)) isDone = (await this.#delete(volume)) && isDone;
    }
    return isDone;
  }

  /** The class of a claim that waits for this driver. */
  #classOf({ metadata, spec, status }: Claim): StorageClass | null {
    if (metadata.deletionTimestamp !== undefined || spec.volumeName) return null;
    if (status?.phase !== undefined && status.phase !== "Pending") return null;
    const storageClass = this.#classes.objects.get(spec.storageClassName ?? "");
    if (storageClass?.provisioner !== this.#driver.name) return null;
    const annotations = metadata.annotations ?? {};
    if (!PROVISIONER_OF_CLAIM.some((key) => annotations[key] === this.#driver.name)) return null;
    const waits = storageClass.volumeBindingMode === "WaitForFirstConsumer";
    if (waits && annotations[SELECTED_NODE] === undefined) return null;
    return this.#volumes.objects.has(`pvc-${metadata.uid}`) ? null : storageClass;
  }

  async #provision(claim: Claim, storageClass: StorageClass): Promise<boolean> {
    const key = claim.metadata.uid;
    const { name, namespace } = claim.metadata;
    if (!this.#told.has(key)) {
      await this.#tell(claim, "Normal", [
        "Provisioning",
        `External provisioner is provisioning volume for claim "${namespace}/${name}"`,
      ]);
    }
    try {
      const volume = await this.#createVolume(claim, storageClass);
      const made = await this.#client.create("/api/v1/persistentvolumes", volume, {
        signal: this.#signal,
      });
      const { metadata } = this.#volumes.put(made, { isNew: true });
      await this.#tell(claim, "Normal", [
        "ProvisioningSucceeded",
        `Successfully provisioned volume ${metadata.name}`,
      ]);
      return true;
    } catch (error) {
      const why = `failed to provision volume with StorageClass "${storageClass.metadata.name}"`;
      await this.#tell(claim, "Warning", ["ProvisioningFailed", `${why}: ${String(error)}`]);
      if (isKind(error, "resource-exhausted")) await this.#chooseAnotherNode(claim);
      return false;
    }
  }

  /** The scheduler picks again when the annotation is gone. */
  async #chooseAnotherNode(claim: Claim): Promise<void> {
    const { [SELECTED_NODE]: selected, ...annotations } = claim.metadata.annotations ?? {};
    if (selected === undefined) return;
    const { namespace = "", name } = claim.metadata;
    const path = `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}`;
    const body = { ...claim, metadata: { ...claim.metadata, annotations } };
    this.#claims.put(await this.#client.replace(path, body, { signal: this.#signal }));
  }

  /** Makes the volume; returns the PersistentVolume for it. */
  async #createVolume(claim: Claim, storageClass: StorageClass): Promise<object> {
    const { metadata, spec } = claim;
    const name = `pvc-${metadata.uid}`;
    const given = Object.entries(storageClass.parameters ?? {});
    const fsType = storageClass.parameters?.[FS_TYPE] ?? this.#defaultFsType;
    const isBlock = spec.volumeMode === "Block";
    const mountFlags = [...(storageClass.mountOptions ?? [])];
    const extra: Record<string, string> = {
      [`${RESERVED}pvc/name`]: metadata.name,
      [`${RESERVED}pvc/namespace`]: metadata.namespace ?? "",
      [`${RESERVED}pv/name`]: name,
    };
    const where = topologies(this.#driver.name, metadata.annotations?.[SELECTED_NODE], {
      csiNodes: this.#csiNodes.all,
      nodes: this.#nodes.objects,
    }).map((segments) => ({ segments: { ...segments } }));
    if (this.#withTopology && where.length === 0)
      throw new Error("error generating accessibility requirements: no available topology found");
    const { volume } = await this.#driver.controller.createVolume(
      {
        name,
        capacityRange: { requiredBytes: quantity(spec.resources.requests.storage) },
        volumeCapabilities: spec.accessModes.map((accessMode) =>
          capability({ accessMode, volumeMode: spec.volumeMode, fsType, mountFlags }),
        ),
        parameters: {
          ...Object.fromEntries(given.filter(([key]) => !key.startsWith(RESERVED))),
          ...(this.#withMetadata ? extra : {}),
        },
        ...(this.#withTopology
          ? { accessibilityRequirements: { requisite: where, preferred: where } }
          : {}),
      },
      { signal: this.#signal },
    );
    if (volume === undefined) throw new Error("CreateVolume returned no volume");
    const terms = volume.accessibleTopology.map(({ segments }) => ({
      matchExpressions: Object.entries(segments).map(([key, value]) => ({
        ...{ key, operator: "In", values: [value] },
      })),
    }));
    return {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { name, annotations: { [PROVISIONED_BY]: this.#driver.name } },
      spec: {
        accessModes: spec.accessModes,
        capacity: { storage: quantityText(volume.capacityBytes) },
        claimRef: {
          ...{ apiVersion: "v1", kind: "PersistentVolumeClaim" },
          ...{ name: metadata.name, namespace: metadata.namespace, uid: metadata.uid },
          resourceVersion: metadata.resourceVersion,
        },
        csi: {
          driver: this.#driver.name,
          volumeHandle: volume.volumeId,
          ...(isBlock ? {} : { fsType }),
          volumeAttributes: {
            ...volume.volumeContext,
            "storage.kubernetes.io/csiProvisionerIdentity": `stand-in-${this.#driver.name}`,
          },
        },
        ...(mountFlags.length > 0 ? { mountOptions: mountFlags } : {}),
        ...(terms.length > 0 ? { nodeAffinity: { required: { nodeSelectorTerms: terms } } } : {}),
        persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? "Delete",
        storageClassName: storageClass.metadata.name,
        volumeMode: spec.volumeMode ?? "Filesystem",
      },
    };
  }

  #isToDelete({ metadata, spec, status }: Volume): boolean {
    return (
      status?.phase === "Released" &&
      spec.persistentVolumeReclaimPolicy === "Delete" &&
      spec.csi?.driver === this.#driver.name &&
      metadata.annotations?.[PROVISIONED_BY] === this.#driver.name &&
      metadata.deletionTimestamp === undefined
    );
  }

  async #delete(volume: Volume): Promise<boolean> {
    const { name } = volume.metadata;
    const attachment = this.#attachments.all.find(
      ({ spec }) => spec.source.persistentVolumeName === name,
    );
    try {
      if (attachment !== undefined)
        throw new Error(
          `persistentvolume ${name} is still attached to node ${attachment.spec.nodeName}`,
        );
      const volumeId = volume.spec.csi?.volumeHandle ?? "";
      await this.#driver.controller.deleteVolume({ volumeId }, { signal: this.#signal });
      await remove(`/api/v1/persistentvolumes/${name}`, this.#signal);
      this.#told.delete(volume.metadata.uid);
      return true;
    } catch (error) {
      if (isKind(error, "not-found")) return true;
      await this.#tell(volume, "Warning", ["VolumeFailedDelete", String(error)]);
      return false;
    }
  }

  async #tell(
    about: Claim | Volume,
    type: "Normal" | "Warning",
    [reason, message]: readonly [string, string],
  ): Promise<void> {
    if (this.#told.get(about.metadata.uid) === message) return;
    this.#told.set(about.metadata.uid, message);
    console.log(`${reason}: ${message}`);
    const kind =
      about.metadata.namespace === undefined ? "PersistentVolume" : "PersistentVolumeClaim";
    const component = `${this.#driver.name}_${COMPONENT}`;
    await postEvent(this.#client, {
      ...{ about, apiVersion: "v1", kind, type, reason, message, component },
      signal: this.#signal,
    });
  }
}

async function main(): Promise<void> {
  const flags = parseFlags(process.argv.slice(2), {
    v: "text",
    version: "bool",
    "csi-address": "text",
    "feature-gates": "text",
    "strict-topology": "bool",
    "immediate-topology": "bool",
    "default-fstype": "text",
    "extra-create-metadata": "bool",
    timeout: "text",
    "worker-threads": "text",
    "leader-election": "bool",
    "volume-name-prefix": "text",
  });
  const gates = parseGates(flags["feature-gates"] ?? "");
  const signal = shutdownSignal();
  const driver = await openDriver(flags["csi-address"] ?? "/run/csi/socket");
  const provisioner = new Provisioner(await connect(), driver, {
    signal,
    defaultFsType: flags["default-fstype"] ?? "",
    withMetadata: flags["extra-create-metadata"] === "true",
    withTopology: gates["Topology"] === true,
  });
  await provisioner.run();
  process.exit(0);
}

if (process.argv[1]?.endsWith("provisioner.cjs")) {
  main().catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}
