/**
 * What the CSI controller does with volumes, over REST alone: create, delete, publish, unpublish.
 *
 * Why apart from the service: these are the rules of idempotence, free of gRPC.
 * Invariants: each is safe to repeat and ends in the same state; a repeat that wants something else is refused with
 * `already-exists` or `failed-precondition`, never carried out. Callers hold the volume's guard.
 */
import {
  connectionParameter,
  POOL_LABEL,
  PUBLISH_CONTEXT_KEYS,
  URI_KEY,
} from "#common/csi/driver.ts";
import { isKind, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { nodeHostNqn } from "#common/nqn.ts";
import type { Node, Pool, Volume } from "#common/openapi/model.ts";
import type { Size, VolumeWish } from "./parse.ts";
import type { RestApi } from "./rest.ts";

type StringMap = Readonly<Record<string, string>>;

/** The present volume, or null. */
export async function findVolume(
  rest: Pick<RestApi, "getVolume">,
  uuid: string,
): Promise<Volume | null> {
  try {
    return await rest.getVolume(uuid);
  } catch (error) {
    if (isKind(error, "not-found")) return null;
    throw error;
  }
}

/** @throws {SvcError} `already-exists` when the volume differs from the wish, `aborted` while it comes or goes */
function checkSame({ spec }: Volume, { uuid, body, requiredBytes, limitBytes }: VolumeWish): void {
  const refuse = (why: string) =>
    new SvcError("already-exists", `Cannot create volume ${uuid}: it exists, but ${why}`);
  if (spec.status === "Creating" || spec.status === "Deleting") {
    const doing = spec.status === "Creating" ? "created" : "deleted";
    throw new SvcError("aborted", `Cannot create volume ${uuid}: it is being ${doing}`);
  }
  if (spec.status !== "Created") throw refuse(`its status is ${spec.status}`);
  if (spec.num_replicas < body.replicas) {
    throw refuse(`has ${spec.num_replicas} replicas, not ${body.replicas}`);
  }
  const limit: Size["limitBytes"] = limitBytes;
  // One that was made before sizes were rounded up has just what was asked for.
  if (spec.size < requiredBytes || (limit !== null && spec.size > limit)) {
    throw refuse(`has ${spec.size} bytes, which is not in the range that is asked for`);
  }
  if (spec.thin !== body.thin) throw refuse(`is ${spec.thin ? "thin" : "thick"}`);
}

/** @throws {SvcError} `already-exists`, `aborted`, `resource-exhausted`, ... */
export async function createVolume(rest: RestApi, wish: VolumeWish): Promise<Volume> {
  const { uuid, body } = wish;
  const found = await findVolume(rest, uuid);
  // One that a failed attempt left half made is taken up again by the same request.
  if (found !== null && found.spec.status !== "Creating") {
    checkSame(found, wish);
    return found;
  }
  try {
    return await rest.createVolume(uuid, body);
  } catch (error) {
    if (!isKind(error, "already-exists")) throw error;
    const made = await rest.getVolume(uuid); // by somebody else meanwhile
    checkSame(made, wish);
    return made;
  }
}

/** Where its target is, or is to be, while it has one; one that is being deleted has lost its user already. */
export function targetNode({ spec }: Volume): string | null {
  return spec.status === "Deleting" ? null : (spec.target?.node ?? null);
}

/**
 * Gone already counts as deleted; a published volume is refused, because agent-core would take it from under its user.
 * @throws {SvcError} `failed-precondition`, ...
 */
export async function deleteVolume(
  rest: Pick<RestApi, "getVolume" | "deleteVolume">,
  uuid: string,
): Promise<void> {
  const found = await findVolume(rest, uuid);
  if (found === null) return;
  const node = targetNode(found);
  if (node !== null) {
    throw new SvcError(
      "failed-precondition",
      `Cannot delete volume ${uuid}: it is published; unpublish it first`,
      { fields: { "target.node": node } },
    );
  }
  try {
    await rest.deleteVolume(uuid);
  } catch (error) {
    if (isKind(error, "not-found")) return;
    // A precondition may also fail because the volume went away meanwhile.
    if (isKind(error, "failed-precondition") && (await findVolume(rest, uuid)) === null) return;
    throw error;
  }
}

/** The publish context without the URI: what the node plugin is told about timeouts. */
export function publishContextOf(parameters: StringMap): Record<string, string> {
  const context: Record<string, string> = {};
  for (const key of PUBLISH_CONTEXT_KEYS) {
    const value = connectionParameter(parameters, key);
    if (value !== null) context[key] = String(value);
  }
  return context;
}

function isUsable(node: Node): boolean {
  return node.state?.status === "Online" && node.spec?.cordondrainstate === undefined;
}

/** The application's node as the target's, if it is a storage node in good order. */
async function localTarget(rest: RestApi, nodeId: string): Promise<string | null> {
  try {
    const node = await rest.getNode(nodeId);
    return isUsable(node) ? node.id : null;
  } catch (error) {
    if (isKind(error, "not-found")) return null;
    throw error;
  }
}

/** Hosts that the target lets in; empty when it lets in everyone, or is not shared. */
function allowedHosts(deviceUri: string): string[] {
  const query = deviceUri.split("?")[1] ?? "";
  return new URLSearchParams(query).getAll("hostnqn");
}

function deviceUri(volume: Volume): string | null {
  const uri = volume.state.target?.deviceUri;
  return uri === undefined || uri === "" ? null : uri;
}

export type PublishWish = {
  readonly uuid: string;
  readonly nodeId: string;
  readonly parameters: StringMap;
};

/** Name that the target knows the node by: its own, when it is a storage node that says so. */
async function hostNqnOf(rest: RestApi, nodeId: string): Promise<string> {
  try {
    const node = await rest.getNode(nodeId);
    return node.spec?.node_nqn ?? node.state?.node_nqn ?? nodeHostNqn(nodeId);
  } catch (error) {
    if (isKind(error, "not-found")) return nodeHostNqn(nodeId);
    throw error;
  }
}

/**
 * The volume is published to other nodes than this one. What is wanted says so also while the target's engine is away;
 * a control plane that does not tell it still shows whom a target that can be seen lets in.
 */
async function isElsewhere(rest: RestApi, volume: Volume, nodeId: string): Promise<boolean> {
  const nodes = volume.spec.target?.frontend_nodes ?? [];
  if (nodes.length > 0) return nodes.every(({ name }) => name !== nodeId);
  const hosts = allowedHosts(deviceUri(volume) ?? "");
  return hosts.length > 0 && !hosts.includes(await hostNqnOf(rest, nodeId));
}

/**
 * A volume that has a target already: for this node all is well, for another one it is not.
 * Without access list the control plane itself is asked whose it is, which also revives a lost target.
 */
async function publishedBefore(
  rest: RestApi,
  volume: Volume,
  { uuid, nodeId, parameters }: PublishWish,
): Promise<Volume> {
  const elsewhere = (cause?: unknown) =>
    new SvcError(
      "failed-precondition",
      `Cannot publish volume ${uuid} to node ${nodeId}: it is published to another node`,
      { fields: { "target.node": volume.spec.target?.node }, cause },
    );
  const protocol = volume.spec.target?.protocol ?? "nvmf";
  if (protocol !== "nvmf") {
    throw new SvcError(
      "failed-precondition",
      `Cannot publish volume ${uuid}: it is published over ${protocol}`,
    );
  }
  if (allowedHosts(deviceUri(volume) ?? "").length > 0) {
    if (await isElsewhere(rest, volume, nodeId)) throw elsewhere();
    return volume;
  }
  try {
    return await rest.publishVolume(uuid, {
      publish_context: publishContextOf(parameters),
      protocol: "nvmf",
      republish: true,
      reuse_existing: true,
      frontend_node: nodeId,
    });
  } catch (error) {
    if (isKind(error, "permission-denied")) throw elsewhere(error);
    throw error;
  }
}

/** @throws {SvcError} `not-found`, `failed-precondition`, `resource-exhausted`, `unavailable` */
export async function publishVolume(
  rest: RestApi,
  wish: PublishWish,
): Promise<Record<string, string>> {
  const { uuid, nodeId, parameters } = wish;
  const context = publishContextOf(parameters);
  const found = await rest.getVolume(uuid);
  let published: Volume;
  if (found.spec.target !== undefined) {
    published = await publishedBefore(rest, found, wish);
  } else {
    // The control plane takes a node that is named for an order; inside a group it spreads the targets itself, and prefers
    // the frontend's node.
    const isGrouped = found.spec.affinity_group !== undefined;
    const node = isGrouped ? null : await localTarget(rest, nodeId);
    try {
      published = await rest.publishVolume(uuid, {
        publish_context: context,
        protocol: "nvmf",
        frontend_node: nodeId,
        ...(node === null ? {} : { node }),
      });
    } catch (error) {
      if (!isKind(error, "already-published")) throw error;
      published = await publishedBefore(rest, await rest.getVolume(uuid), wish); // meanwhile
    }
  }
  const uri = deviceUri(published);
  if (uri === null) {
    throw new SvcError("unavailable", `Cannot publish volume ${uuid}: its target is not online`);
  }
  return { ...context, [URI_KEY]: uri };
}

/** Not there, or not published, counts as unpublished. */
export async function unpublishVolume(
  rest: RestApi,
  { uuid, nodeId, log }: { readonly uuid: string; readonly nodeId: string; readonly log: Log },
): Promise<void> {
  const found = await findVolume(rest, uuid);
  if (found === null || found.spec.target === undefined) return;
  // A late request about a node that the volume has left must not take it from the present one.
  if (nodeId !== "" && (await isElsewhere(rest, found, nodeId))) {
    log.info("volume is published to another node", { "volume.uuid": uuid, "node.id": nodeId });
    return;
  }
  try {
    await rest.unpublishVolume(uuid);
  } catch (error) {
    if (!isKind(error, "not-found", "not-published")) throw error;
  }
}

/** The pool is one that volumes of this driver are placed on, and takes new ones. */
function takesVolumes({ spec, state }: Pool, isOpen: (node: string) => boolean): boolean {
  if (spec?.labels?.[POOL_LABEL.key] !== POOL_LABEL.value) return false;
  if (spec.status !== "Created") return false;
  return (state?.status === "Online" || state?.status === "Degraded") && isOpen(spec.node);
}

/** Free bytes of the pools that may hold new volumes; those of one node when it is named. */
export async function poolCapacity(
  rest: Pick<RestApi, "listPools" | "listNodes">,
  node: string | null,
): Promise<number> {
  try {
    const [pools, nodes] = await Promise.all([rest.listPools(node), rest.listNodes()]);
    const open = new Set(nodes.filter(isUsable).map(({ id }) => id));
    return pools
      .filter((pool) => takesVolumes(pool, (id) => open.has(id)))
      .reduce(
        (sum, { state }) => sum + Math.max(0, (state?.capacity ?? 0) - (state?.used ?? 0)),
        0,
      );
  } catch (error) {
    if (node !== null && isKind(error, "not-found")) return 0; // a node without storage
    throw error;
  }
}
