/**
 * gRPC v1 NexusRpc: parse, call the engine, encode. Calls that change one nexus happen one at a time;
 * a caller whose deadline passes while it waits gets deadline-exceeded.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SvcError } from "#common/errors.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import {
  type CreateNexusRequest,
  NexusRpc,
  type NexusSchema,
  NexusState,
  type RebuildHistoryRecordSchema,
  type RebuildHistoryResponseSchema,
} from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { Locks } from "../locks.ts";
import type {
  NativeEngine,
  NexusInfo,
  NexusRequest,
  RebuildAction,
  RebuildRecord,
} from "../native.ts";
import { allowedHosts, fromTimestamp, toTimestamp } from "./shared.ts";

/** Published: an encryption key, when given, has 16 characters (it is not used). */
const KEY_LENGTH = 16;
/** Of NvmeAnaState. */
const ANA_INACCESSIBLE = 3;

export function nexusToWire(nexus: NexusInfo): MessageInitShape<typeof NexusSchema> {
  return {
    name: nexus.name,
    uuid: nexus.uuid,
    size: nexus.size,
    state: nexus.state,
    children: nexus.children.map((child) => ({
      uri: child.uri,
      state: child.state,
      stateReason: child.reason,
      rebuildProgress: child.rebuildProgress,
      ...(child.deviceName === null ? {} : { deviceName: child.deviceName }),
      ...(child.faultTimeNs === null ? {} : { faultTimestamp: toTimestamp(child.faultTimeNs) }),
      hasIoLog: child.hasIoLog,
    })),
    deviceUri: nexus.deviceUri,
    rebuilds: nexus.rebuilds,
    anaState: nexus.anaState,
    allowedHosts: [...nexus.allowedHosts],
  };
}

function requestOf(request: CreateNexusRequest): NexusRequest {
  return {
    name: request.name,
    uuid: request.uuid,
    size: request.size,
    cntlidMin: request.minCntlId,
    cntlidMax: request.maxCntlId,
    resvKey: request.resvKey,
    preemptKey: request.preemptKey,
    children: request.children,
    infoKey: request.nexusInfoKey,
    resvType: request.resvType ?? null,
    preemptPolicy: request.preemptPolicy,
  };
}

function recordToWire(record: RebuildRecord): MessageInitShape<typeof RebuildHistoryRecordSchema> {
  return {
    childUri: record.childUri,
    srcUri: record.sourceUri,
    state: record.state,
    blocksTotal: record.blocksTotal,
    blocksRecovered: record.blocksRecovered,
    blocksTransferred: record.blocksTransferred,
    blocksRemaining: record.blocksRemaining,
    blocksPerTask: record.blocksPerTask,
    blockSize: record.blockSize,
    isPartial: record.isPartial,
    startTime: toTimestamp(record.startTimeNs),
    endTime: toTimestamp(record.endTimeNs),
  };
}

function checkShare(uuid: string, share: ShareProtocol, key: string): void {
  if (share !== ShareProtocol.NVMF) {
    const message = `Cannot publish nexus ${uuid}: share protocol ${share} is not NVMF (1)`;
    throw new SvcError("invalid-argument", message);
  }
  if (key !== "" && key.length !== KEY_LENGTH) {
    const message = `Cannot publish nexus ${uuid}: its key has ${key.length} characters, not 16`;
    throw new SvcError("invalid-argument", message);
  }
}

type Paths = Pick<NativeEngine, "nexusList" | "nexusSetAnaState">;

function checkAlive({ uuid, state }: Pick<NexusInfo, "uuid" | "state">, what: string): void {
  if (state !== NexusState.NEXUS_SHUTTING_DOWN && state !== NexusState.NEXUS_SHUTDOWN) return;
  const message = `Cannot ${what} nexus ${uuid}: it is shut down; destroy it and create it anew`;
  throw new SvcError("failed-precondition", message);
}

/**
 * Opens a path to a nexus. One that has ended, by itself or by request, refuses all I/O: its hosts
 * must not be told to come.
 * @throws failed-precondition when it has ended, before or meanwhile; its path is closed then.
 */
export async function openPath(
  engine: Paths,
  { uuid, what, open }: { uuid: string; what: string; open: () => Promise<NexusInfo> },
): Promise<NexusInfo> {
  const before = (await engine.nexusList()).find((one) => one.uuid === uuid.toLowerCase());
  if (before) checkAlive(before, what);
  const after = await open();
  try {
    checkAlive(after, what);
  } catch (ended) {
    await engine.nexusSetAnaState(uuid, ANA_INACCESSIBLE);
    throw ended;
  }
  return after;
}

export function nexusService(engine: NativeEngine): GrpcService {
  const locks = new Locks();
  const one = async (uuid: string, signal: AbortSignal, work: () => Promise<NexusInfo>) => ({
    nexus: nexusToWire(await locks.run(`nexus ${uuid.toLowerCase()}`, signal, work)),
  });
  const rebuild = (uuid: string, uri: string, action: RebuildAction, signal: AbortSignal) =>
    one(uuid, signal, () => engine.nexusRebuild(uuid, uri, action));
  const noInjection = (uuid: string) =>
    new SvcError(
      "unimplemented",
      `Cannot inject a fault into nexus ${uuid}: build its children from error:// bdevs instead`,
    );
  return makeService(NexusRpc, {
    createNexus: (request, { signal }) =>
      one(request.uuid, signal, () => engine.nexusCreate(requestOf(request))),
    destroyNexus: ({ uuid }, { signal }) =>
      locks.run(`nexus ${uuid.toLowerCase()}`, signal, async () => {
        await engine.nexusDestroy(uuid);
        return {};
      }),
    listNexus: async ({ name, uuid }) => ({
      nexusList: (await engine.nexusList())
        .filter((nexus) => name === undefined || nexus.name === name)
        .filter((nexus) => uuid === undefined || nexus.uuid === uuid.toLowerCase())
        .map(nexusToWire),
    }),
    addChildNexus: ({ uuid, uri, norebuild }, { signal }) =>
      one(uuid, signal, () => engine.nexusAddChild(uuid, uri, norebuild)),
    removeChildNexus: ({ uuid, uri }, { signal }) =>
      one(uuid, signal, () => engine.nexusRemoveChild(uuid, uri)),
    faultNexusChild: ({ uuid, uri }, { signal }) =>
      one(uuid, signal, () => engine.nexusFaultChild(uuid, uri)),
    shutdownNexus: ({ uuid }, { signal }) => one(uuid, signal, () => engine.nexusShutdown(uuid)),
    injectNexusFault: async ({ uuid }) => {
      throw noInjection(uuid);
    },
    removeInjectedNexusFault: async ({ uuid }) => {
      throw noInjection(uuid);
    },
    listInjectedNexusFaults: async () => ({ injections: [] }),
    publishNexus: ({ uuid, key, share, allowedHosts: hosts }, { signal }) =>
      one(uuid, signal, async () => {
        checkShare(uuid, share, key);
        const open = () => engine.nexusPublish(uuid, allowedHosts(hosts));
        return openPath(engine, { uuid, what: "publish", open });
      }),
    unpublishNexus: ({ uuid }, { signal }) => one(uuid, signal, () => engine.nexusUnpublish(uuid)),
    getNvmeAnaState: async ({ uuid }) => ({ anaState: await engine.nexusAnaState(uuid) }),
    setNvmeAnaState: ({ uuid, anaState }, { signal }) =>
      one(uuid, signal, () => {
        const set = () => engine.nexusSetAnaState(uuid, anaState);
        if (anaState === ANA_INACCESSIBLE) return set();
        return openPath(engine, { uuid, what: "set the ANA state of", open: set });
      }),
    childOperation: ({ nexusUuid, uri, action }, { signal }) =>
      one(nexusUuid, signal, () => engine.nexusChildOperation(nexusUuid, uri, action)),
    startRebuild: ({ nexusUuid, uri }, { signal }) => rebuild(nexusUuid, uri, "start", signal),
    stopRebuild: ({ nexusUuid, uri }, { signal }) => rebuild(nexusUuid, uri, "stop", signal),
    pauseRebuild: ({ nexusUuid, uri }, { signal }) => rebuild(nexusUuid, uri, "pause", signal),
    resumeRebuild: ({ nexusUuid, uri }, { signal }) => rebuild(nexusUuid, uri, "resume", signal),
    getRebuildState: async ({ nexusUuid, uri }) => ({
      state: await engine.nexusRebuildState(nexusUuid, uri),
    }),
    getRebuildStats: async ({ nexusUuid, uri }) => {
      const { startTimeNs, ...stats } = await engine.nexusRebuildStats(nexusUuid, uri);
      return { ...stats, startTime: toTimestamp(startTimeNs) };
    },
    getRebuildHistory: async ({ uuid }) => {
      const records = (await engine.nexusRebuildHistory(uuid)).map(recordToWire);
      const nexus = (await engine.nexusList()).find((one) => one.uuid === uuid.toLowerCase());
      return { nexus: uuid, name: nexus?.name ?? "", records };
    },
    listRebuildHistory: async ({ count, sinceEndTime }) => {
      const sinceNs = sinceEndTime ? fromTimestamp(sinceEndTime) : 0n;
      const histories: Record<string, MessageInitShape<typeof RebuildHistoryResponseSchema>> = {};
      for (const { uuid, name } of await engine.nexusList()) {
        const all = await engine.nexusRebuildHistory(uuid);
        const recent = all.filter((record) => record.endTimeNs >= sinceNs);
        const newest = count === undefined ? recent : count === 0 ? [] : recent.slice(-count);
        histories[uuid] = { nexus: uuid, name, records: newest.map(recordToWire) };
      }
      return { histories };
    },
  });
}
