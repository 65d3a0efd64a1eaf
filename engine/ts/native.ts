/**
 * The boundary to the C++ engine: the same functions as engine/native/addon/addon.cc, in the same
 * order, typed and checked.
 *
 * Why: this is the only file that loads the .node file, so that everything else works on parsed
 * records and SvcErrors.
 * Invariants: 64-bit numbers are bigint, none is null, every property is present; what the addon
 * answers is checked against its schema (a mismatch is a bug: the two sides were built apart);
 * I/O data never passes here.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Static, type TSchema, Type } from "typebox";
import { Compile } from "typebox/compile";
import { check } from "#common/check.ts";
import { errorMessage, SVC_ERROR_KINDS, SvcError } from "#common/errors.ts";

const text = Type.String();
const texts = Type.Array(Type.String());
const maybeText = Type.Union([Type.String(), Type.Null()]);
const u64 = Type.BigInt({ minimum: 0n });
const maybeU64 = Type.Union([u64, Type.Null()]);
const integer = Type.Integer();
const flag = Type.Boolean();
// The native enums carry the published numbers of engine gRPC.
const childState = Type.Union([Type.Literal(0), Type.Literal(1), Type.Literal(2), Type.Literal(3)]);
const childReason = Type.Union([
  Type.Literal(0),
  Type.Literal(1),
  Type.Literal(2),
  Type.Literal(3),
  Type.Literal(4),
  Type.Literal(5),
  Type.Literal(6),
  Type.Literal(7),
  Type.Literal(8),
  Type.Literal(9),
  Type.Literal(10),
  Type.Literal(11),
]);
const nexusState = Type.Union([
  Type.Literal(0),
  Type.Literal(1),
  Type.Literal(2),
  Type.Literal(3),
  Type.Literal(4),
  Type.Literal(5),
]);
const anaState = Type.Union([
  Type.Literal(0),
  Type.Literal(1),
  Type.Literal(2),
  Type.Literal(3),
  Type.Literal(4),
  Type.Literal(15),
]);
const rebuildState = Type.Union([
  Type.Literal(0),
  Type.Literal(1),
  Type.Literal(2),
  Type.Literal(3),
  Type.Literal(4),
  Type.Literal(5),
]);
const controllerState = Type.Union([
  Type.Literal(0),
  Type.Literal(1),
  Type.Literal(2),
  Type.Literal(3),
  Type.Literal(4),
  Type.Literal(5),
]);

const PoolSchema = Type.Object({
  name: text,
  uuid: text,
  disks: texts,
  capacity: u64,
  used: u64,
  committed: u64,
  diskCapacity: u64,
  clusterSize: integer,
  pageSize: integer,
  /** Of its disk, and so of its replicas. */
  blockSize: integer,
  faulted: flag,
  /** What its disk did wrong since the pool was loaded; writes: all that changes the medium, and flushes. */
  readErrors: u64,
  writeErrors: u64,
  slowRequests: u64,
  /** How long the oldest request that has not ended has been waiting. */
  waitingMs: u64,
  /** null: there was none. */
  sinceLastErrorMs: maybeU64,
  sinceLastSlowMs: maybeU64,
  /** On the disk, in bytes. */
  lastErrorOffset: u64,
  lastErrorLength: u64,
  /** errno */
  lastErrorNumber: integer,
  lastErrorWasRead: flag,
});
const ReplicaSchema = Type.Object({
  name: text,
  uuid: text,
  poolName: text,
  poolUuid: text,
  size: u64,
  thin: flag,
  shared: flag,
  isSnapshot: flag,
  isClone: flag,
  uri: text,
  usage: Type.Object({
    capacity: u64,
    allocated: u64,
    clusterSize: u64,
    clusters: u64,
    allocatedClusters: u64,
  }),
  allowedHosts: texts,
  entityId: maybeText,
  snapshotUuid: maybeText,
});
const BdevSchema = Type.Object({
  name: text,
  uuid: text,
  uri: text,
  productName: text,
  claimedBy: text,
  shareUri: text,
  blockCount: u64,
  blockSize: integer,
});
const ChildSchema = Type.Object({
  uri: text,
  state: childState,
  reason: childReason,
  rebuildProgress: integer,
  deviceName: maybeText,
  faultTimeNs: maybeU64,
  hasIoLog: flag,
});
/** A host that was connected to a nexus while it was shared, now or earlier. */
const HostSchema = Type.Object({
  nqn: text,
  /** Controllers that are connected. */
  live: integer,
  /** Controllers that ended without a shutdown and have not come back. */
  lost: integer,
});
const NexusSchema = Type.Object({
  name: text,
  uuid: text,
  deviceUri: text,
  /** As it was asked for. */
  infoKey: text,
  size: u64,
  state: nexusState,
  anaState,
  rebuilds: integer,
  children: Type.Array(ChildSchema),
  allowedHosts: texts,
  /** Controllers that hosts have now. */
  connectedHosts: integer,
  hosts: Type.Array(HostSchema),
  /** false: there were more hosts than are kept. */
  hostsComplete: flag,
});
const IoStatsSchema = Type.Object({
  readOps: u64,
  readBytes: u64,
  writeOps: u64,
  writeBytes: u64,
  unmapOps: u64,
  unmapBytes: u64,
  readLatencyNs: u64,
  writeLatencyNs: u64,
  unmapLatencyNs: u64,
  readLatencyNsMax: u64,
  readLatencyNsMin: u64,
  writeLatencyNsMax: u64,
  writeLatencyNsMin: u64,
  unmapLatencyNsMax: u64,
  unmapLatencyNsMin: u64,
});
const NamedStatsSchema = Type.Object({
  name: text,
  uuid: text,
  entityId: maybeText,
  stats: IoStatsSchema,
});
/** Only buckets that hold something; as many counts as indexes, ascending. */
const LatencyHistogramSchema = Type.Object({
  sumNs: u64,
  zeroCount: u64,
  indexes: Type.Array(integer),
  counts: Type.Array(u64),
});
/**
 * Bucket i holds (2^((i-1)/2^schema), 2^(i/2^schema)] seconds; up to the threshold counts as zero.
 */
const NamedLatenciesSchema = Type.Object({
  name: text,
  uuid: text,
  entityId: maybeText,
  schema: integer,
  zeroThresholdSec: Type.Number(),
  read: LatencyHistogramSchema,
  write: LatencyHistogramSchema,
  unmap: LatencyHistogramSchema,
});
const ControllerSchema = Type.Object({
  name: text,
  state: controllerState,
  blockCount: u64,
  blockSize: integer,
  stats: IoStatsSchema,
});
const ReactorSchema = Type.Object({
  index: integer,
  core: integer,
  turns: u64,
  busyTurns: u64,
  sleeps: u64,
  messages: u64,
  cpuTimeNs: u64,
});
const RebuildStatsSchema = Type.Object({
  blocksTotal: u64,
  blocksRecovered: u64,
  blocksTransferred: u64,
  blocksRemaining: u64,
  progress: u64,
  blocksPerTask: u64,
  blockSize: u64,
  tasksTotal: u64,
  tasksActive: u64,
  isPartial: flag,
  startTimeNs: u64,
});
const RebuildRecordSchema = Type.Object({
  childUri: text,
  sourceUri: text,
  state: rebuildState,
  blocksTotal: u64,
  blocksRecovered: u64,
  blocksTransferred: u64,
  blocksRemaining: u64,
  blocksPerTask: u64,
  blockSize: u64,
  isPartial: flag,
  startTimeNs: u64,
  endTimeNs: u64,
});
const EventSchema = Type.Union([
  Type.Object({ type: Type.Literal("put"), id: u64, key: text, json: text, replaces: maybeU64 }),
  Type.Object({
    type: Type.Literal("log"),
    level: Type.Union([
      Type.Literal("debug"),
      Type.Literal("info"),
      Type.Literal("warn"),
      Type.Literal("error"),
    ]),
    message: text,
    fields: Type.Record(Type.String(), Type.String()),
  }),
  Type.Object({ type: Type.Literal("nexus-changed"), uuid: text }),
]);
const FailureSchema = Type.Object({ code: text, errno: integer });

export type PoolInfo = Static<typeof PoolSchema>;
export type ReplicaInfo = Static<typeof ReplicaSchema>;
export type BdevInfo = Static<typeof BdevSchema>;
export type ChildInfo = Static<typeof ChildSchema>;
export type NexusInfo = Static<typeof NexusSchema>;
export type IoStats = Static<typeof IoStatsSchema>;
export type NamedStats = Static<typeof NamedStatsSchema>;
export type LatencyHistogram = Static<typeof LatencyHistogramSchema>;
export type NamedLatencies = Static<typeof NamedLatenciesSchema>;
export type ControllerInfo = Static<typeof ControllerSchema>;
export type ReactorInfo = Static<typeof ReactorSchema>;
export type RebuildStats = Static<typeof RebuildStatsSchema>;
export type RebuildRecord = Static<typeof RebuildRecordSchema>;
export type EngineEvent = Static<typeof EventSchema>;

export type EngineOptions = {
  /** CPU numbers, one reactor each; null: one that is not pinned. */
  readonly cores: readonly (number | null)[];
  readonly poll: boolean;
  readonly spinUs: number;
  readonly nodeName: string;
  readonly targetAddress: string;
  readonly replicaPort: number;
  readonly nexusPort: number;
  readonly targetQueueDepth: number;
  readonly targetQpairs: number;
  readonly targetRetryDelays100ms: readonly [number, number, number];
  readonly hostNqn: string;
  readonly hostId: string | null;
  readonly keepAliveMs: number;
  readonly ioTimeoutMs: number;
  readonly adminTimeoutMs: number;
  readonly anaEnabled: boolean;
  readonly reservationsEnabled: boolean;
  readonly partialRebuild: boolean;
  /** 0n: no limit. */
  readonly rebuildBytesPerSecond: bigint;
  readonly ptplDir: string | null;
};
export type PoolRequest = {
  readonly name: string;
  readonly uuid: string | null;
  readonly disks: readonly string[];
  readonly clusterSize: number | null;
};
export type ReplicaRequest = {
  readonly name: string;
  readonly uuid: string;
  /** Name or uuid. */
  readonly pool: string;
  readonly size: bigint;
  readonly thin: boolean;
  readonly share: boolean;
  readonly allowedHosts: readonly string[];
  readonly entityId: string | null;
};
export type NexusRequest = {
  readonly name: string;
  readonly uuid: string;
  readonly size: bigint;
  /** 0: the default range. */
  readonly cntlidMin: number;
  readonly cntlidMax: number;
  readonly resvKey: bigint;
  readonly preemptKey: bigint;
  readonly children: readonly string[];
  readonly infoKey: string;
  readonly resvType: number | null;
  readonly preemptPolicy: number;
};
export type RebuildAction = "start" | "stop" | "pause" | "resume";

/** The C++ engine of this process. Every call is an SvcError away from failing. */
export interface NativeEngine {
  start(options: EngineOptions, onEvent: (event: EngineEvent) => void): Promise<void>;
  stop(): Promise<void>;
  /**
   * Answers a "put" event; `failure` null: it is durable, at `revision` (else 0n). The nexus's next put `replaces`
   * that one; null there is a nexus's first.
   */
  completePut(id: bigint, failure: string | null, revision: bigint): void;
  poolCreate(request: PoolRequest): Promise<PoolInfo>;
  poolImport(request: PoolRequest): Promise<PoolInfo>;
  poolExport(name: string, uuid: string | null): Promise<void>;
  poolDestroy(name: string, uuid: string | null): Promise<void>;
  poolList(): Promise<PoolInfo[]>;
  replicaCreate(request: ReplicaRequest): Promise<ReplicaInfo>;
  replicaDestroy(uuid: string, pool: string | null): Promise<void>;
  replicaShare(uuid: string, allowedHosts: readonly string[]): Promise<ReplicaInfo>;
  replicaUnshare(uuid: string): Promise<ReplicaInfo>;
  replicaResize(uuid: string, size: bigint): Promise<ReplicaInfo>;
  replicaSetEntityId(uuid: string, entityId: string): Promise<ReplicaInfo>;
  replicaList(): Promise<ReplicaInfo[]>;
  bdevCreate(uri: string): Promise<BdevInfo>;
  bdevDestroy(uri: string): Promise<void>;
  bdevShare(name: string, allowedHosts: readonly string[]): Promise<BdevInfo>;
  bdevUnshare(name: string): Promise<void>;
  bdevList(): Promise<BdevInfo[]>;
  nexusCreate(request: NexusRequest): Promise<NexusInfo>;
  nexusDestroy(uuid: string): Promise<void>;
  nexusShutdown(uuid: string): Promise<NexusInfo>;
  nexusPublish(uuid: string, allowedHosts: readonly string[]): Promise<NexusInfo>;
  nexusUnpublish(uuid: string): Promise<NexusInfo>;
  nexusAddChild(uuid: string, uri: string, norebuild: boolean): Promise<NexusInfo>;
  nexusRemoveChild(uuid: string, uri: string): Promise<NexusInfo>;
  nexusFaultChild(uuid: string, uri: string): Promise<NexusInfo>;
  nexusChildOperation(uuid: string, uri: string, action: number): Promise<NexusInfo>;
  nexusAnaState(uuid: string): Promise<Static<typeof anaState>>;
  nexusSetAnaState(uuid: string, state: number): Promise<NexusInfo>;
  nexusRebuild(uuid: string, uri: string, action: RebuildAction): Promise<NexusInfo>;
  nexusRebuildState(uuid: string, uri: string): Promise<string>;
  nexusRebuildStats(uuid: string, uri: string): Promise<RebuildStats>;
  nexusRebuildHistory(uuid: string): Promise<RebuildRecord[]>;
  nexusList(): Promise<NexusInfo[]>;
  controllerList(): Promise<ControllerInfo[]>;
  poolStats(): Promise<NamedStats[]>;
  replicaStats(): Promise<NamedStats[]>;
  nexusStats(): Promise<NamedStats[]>;
  poolLatencies(): Promise<NamedLatencies[]>;
  replicaLatencies(): Promise<NamedLatencies[]>;
  nexusLatencies(): Promise<NamedLatencies[]>;
  /** Counters and latencies. */
  resetStats(): Promise<void>;
  reactorStats(): Promise<ReactorInfo[]>;
}

type RawFunction = (...args: unknown[]) => unknown;

/** Turns what the addon rejected with into an SvcError. */
function toFailure(error: unknown): SvcError {
  const { code, errno } = failureParser.Check(error) ? error : { code: "internal", errno: 0 };
  const kind = SVC_ERROR_KINDS.find((known) => known === code) ?? "internal";
  const fields = errno === 0 ? {} : { errno };
  return new SvcError(kind, errorMessage(error), { fields, cause: error });
}
const failureParser = Compile(FailureSchema);

function bind(raw: Readonly<Record<string, RawFunction>>): NativeEngine {
  const invoke = async (name: string, args: readonly unknown[]): Promise<unknown> => {
    const native = raw[name];
    check(native !== undefined, `the addon has no function ${name}: build it again`);
    try {
      return await native(...args);
    } catch (error) {
      throw toFailure(error);
    }
  };
  const answering = <Schema extends TSchema>(name: string, schema: Schema) => {
    const parser = Compile(schema);
    return async (...args: unknown[]): Promise<Static<Schema>> => {
      const answer = await invoke(name, args);
      check(parser.Check(answer), `the addon's answer to ${name} is not of its schema`);
      return answer;
    };
  };
  const quiet =
    (name: string) =>
    async (...args: unknown[]): Promise<void> => {
      await invoke(name, args);
    };
  const eventParser = Compile(EventSchema);
  const start = quiet("start");
  return {
    start: (options, onEvent) =>
      start(options, (event: unknown) => {
        check(eventParser.Check(event), "an event of the addon is not of its schema");
        onEvent(event);
      }),
    stop: quiet("stop"),
    completePut: (id, failure, revision) => {
      const native = raw["completePut"];
      check(native !== undefined, "the addon has no function completePut: build it again");
      native(id, failure, revision);
    },
    poolCreate: answering("poolCreate", PoolSchema),
    poolImport: answering("poolImport", PoolSchema),
    poolExport: quiet("poolExport"),
    poolDestroy: quiet("poolDestroy"),
    poolList: answering("poolList", Type.Array(PoolSchema)),
    replicaCreate: answering("replicaCreate", ReplicaSchema),
    replicaDestroy: quiet("replicaDestroy"),
    replicaShare: answering("replicaShare", ReplicaSchema),
    replicaUnshare: answering("replicaUnshare", ReplicaSchema),
    replicaResize: answering("replicaResize", ReplicaSchema),
    replicaSetEntityId: answering("replicaSetEntityId", ReplicaSchema),
    replicaList: answering("replicaList", Type.Array(ReplicaSchema)),
    bdevCreate: answering("bdevCreate", BdevSchema),
    bdevDestroy: quiet("bdevDestroy"),
    bdevShare: answering("bdevShare", BdevSchema),
    bdevUnshare: quiet("bdevUnshare"),
    bdevList: answering("bdevList", Type.Array(BdevSchema)),
    nexusCreate: answering("nexusCreate", NexusSchema),
    nexusDestroy: quiet("nexusDestroy"),
    nexusShutdown: answering("nexusShutdown", NexusSchema),
    nexusPublish: answering("nexusPublish", NexusSchema),
    nexusUnpublish: answering("nexusUnpublish", NexusSchema),
    nexusAddChild: answering("nexusAddChild", NexusSchema),
    nexusRemoveChild: answering("nexusRemoveChild", NexusSchema),
    nexusFaultChild: answering("nexusFaultChild", NexusSchema),
    nexusChildOperation: answering("nexusChildOperation", NexusSchema),
    nexusAnaState: answering("nexusAnaState", anaState),
    nexusSetAnaState: answering("nexusSetAnaState", NexusSchema),
    nexusRebuild: answering("nexusRebuild", NexusSchema),
    nexusRebuildState: answering("nexusRebuildState", text),
    nexusRebuildStats: answering("nexusRebuildStats", RebuildStatsSchema),
    nexusRebuildHistory: answering("nexusRebuildHistory", Type.Array(RebuildRecordSchema)),
    nexusList: answering("nexusList", Type.Array(NexusSchema)),
    controllerList: answering("controllerList", Type.Array(ControllerSchema)),
    poolStats: answering("poolStats", Type.Array(NamedStatsSchema)),
    replicaStats: answering("replicaStats", Type.Array(NamedStatsSchema)),
    nexusStats: answering("nexusStats", Type.Array(NamedStatsSchema)),
    poolLatencies: answering("poolLatencies", Type.Array(NamedLatenciesSchema)),
    replicaLatencies: answering("replicaLatencies", Type.Array(NamedLatenciesSchema)),
    nexusLatencies: answering("nexusLatencies", Type.Array(NamedLatenciesSchema)),
    resetStats: quiet("resetStats"),
    reactorStats: answering("reactorStats", Type.Array(ReactorSchema)),
  };
}

/** Where the build puts the addon; MAYASTOR_ADDON overrides it (sanitizer builds, images). */
export function addonPath(): string {
  const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
  return process.env["MAYASTOR_ADDON"] ?? join(root, "build", "release", "mayastor.node");
}

/**
 * Loads the addon.
 * @throws {SvcError} `failed-precondition` when it was not built, or not for this machine
 */
export function loadNative(path: string = addonPath()): NativeEngine {
  if (!existsSync(path)) {
    throw new SvcError(
      "failed-precondition",
      `Cannot load the native engine: ${path} does not exist; run npm run build`,
    );
  }
  try {
    // The addon exports plain functions only; their answers are checked one by one.
    return bind(createRequire(import.meta.url)(path) as Record<string, RawFunction>);
  } catch (error) {
    throw new SvcError(
      "failed-precondition",
      `Cannot load the native engine ${path}: ${errorMessage(error)}; run npm run build again`,
      { cause: error },
    );
  }
}
