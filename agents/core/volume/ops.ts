/**
 * Volume operations: create, destroy, number of replicas, clean-up of old targets.
 *
 * Invariants: a volume that cannot get all its replicas is not created at all; destroying is always accepted, and
 * what cannot be reached now is garbage from then on. Exported functions take the volume's guard.
 */
import { isKind, SvcError } from "#common/errors.ts";
import { isShutdown } from "#common/types/nexus.ts";
import type { TopologySpec, VolumeSpec } from "#common/types/volume.ts";
import { volumeSizeFor } from "#common/volume_size.ts";
import { type Core, deleteNexusInfo } from "../context.ts";
import { destroyNexusLazily, unshareNexus } from "../nexus/ops.ts";
import { destroyOrDisown, finishReplica } from "../replica/ops.ts";
import { nexusesOfVolume, replicasOfVolume } from "../scheduling/snapshot.ts";
import {
  addReplica,
  createReplicas,
  Places,
  planRemoval,
  poolCandidates,
  removeReplica,
  tryAttach,
} from "./replicas.ts";
import { volumeStatus } from "./status.ts";
import {
  type PublishRequest,
  publish,
  type Recreate,
  type RepublishRequest,
  republish,
  shareTarget,
  unpublish,
} from "./target.ts";

export type CreateVolumeRequest = {
  readonly uuid: string;
  readonly size: number;
  readonly replicas: number;
  readonly thin: boolean;
  readonly selfHeal: boolean;
  readonly topology: TopologySpec | null;
  readonly labels: Readonly<Record<string, string>> | null;
  readonly affinityGroup: string | null;
};

function toSpec(request: CreateVolumeRequest): VolumeSpec {
  return {
    uuid: request.uuid,
    size: volumeSizeFor(request.size),
    labels: request.labels && { ...request.labels },
    num_replicas: request.replicas,
    status: "Creating",
    policy: { self_heal: request.selfHeal },
    topology: request.topology,
    last_nexus_id: null,
    operation: { operation: "Create", result: null },
    thin: request.thin,
    target: null,
    publish_context: null,
    affinity_group: request.affinityGroup === null ? null : { id: request.affinityGroup },
    publication: null,
  };
}

function checkCreate(request: CreateVolumeRequest): void {
  const { uuid, size, replicas, topology } = request;
  const refuse = (why: string) =>
    new SvcError("invalid-argument", `Cannot create volume ${uuid}: ${why}`);
  if (size <= 0) throw refuse("its size is 0");
  volumeSizeFor(size); // not beyond what can be told
  if (replicas < 1) throw refuse("it needs at least 1 replica");
  const node = topology?.node;
  if (node && "Explicit" in node && node.Explicit.allowed_nodes.length < replicas) {
    const allowed = node.Explicit.allowed_nodes.length;
    throw refuse(`${replicas} replicas are wanted on ${allowed} allowed nodes`);
  }
}

/** The part of a spec that a repeated creation must agree with. */
function wantedPart(spec: VolumeSpec): string {
  const { num_replicas, thin, policy } = spec;
  const size = volumeSizeFor(spec.size); // one that was made before sizes were rounded up is the same
  const { labels, topology, affinity_group } = spec;
  return stable({ size, num_replicas, thin, policy, labels, topology, affinity_group });
}

/** JSON with sorted keys: equal values give equal text. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) =>
    typeof field === "object" && field !== null && !Array.isArray(field)
      ? Object.fromEntries(Object.entries(field).sort(([a], [b]) => (a < b ? -1 : 1)))
      : field,
  );
}

function checkRecreate(core: Core, found: VolumeSpec, wanted: VolumeSpec): void {
  const { uuid } = found;
  switch (core.specs.volumes.phase(found)) {
    case "Creating":
      if (wantedPart(found) === wantedPart(wanted)) return;
      throw new SvcError("conflict", `Cannot create volume ${uuid}: other parameters than before`);
    case "Created":
      throw new SvcError("already-exists", `Cannot create volume ${uuid}: it already exists`);
    default:
      throw new SvcError("deleting", `Cannot create volume ${uuid}: it is being deleted`);
  }
}

export function createVolume(core: Core, request: CreateVolumeRequest): Promise<void> {
  checkCreate(request);
  const { guards } = core;
  const create = () =>
    guards.run(`volume/${request.uuid}`, () => createHeld(core, toSpec(request)));
  // Inside an affinity group one placement must see the other.
  return request.affinityGroup === null
    ? create()
    : guards.run(`group/${request.affinityGroup}`, create);
}

async function createHeld(core: Core, wanted: VolumeSpec): Promise<void> {
  const { specs, log } = core;
  const { uuid } = wanted;
  const found = specs.volumes.find(uuid);
  if (found) checkRecreate(core, found, wanted);
  // A spec of a replica is no replica: what an attempt before left in the making is made first.
  let owned = 0;
  for (const replica of replicasOfVolume(core, uuid)) {
    if (await finishReplica(core, replica)) owned += 1;
  }
  const missing = wanted.num_replicas - owned;
  // Fails before anything is written down when there is no room.
  const count = Math.max(0, missing);
  const choice = poolCandidates(core, found ?? wanted, count, wanted.num_replicas);
  const places = new Places(core, found ?? wanted, { ...choice, count });
  let spec: VolumeSpec;
  try {
    spec = found ?? (await specs.volumes.insert(wanted));
  } catch (error) {
    places.release();
    throw error;
  }
  const { created, lastError } = await createReplicas(core, spec, { places, count });
  if (created.length < missing) {
    for (const replica of replicasOfVolume(core, uuid)) await destroyOrDisown(core, replica.uuid);
    await specs.volumes.remove(uuid);
    const have = owned + created.length;
    // Another took the space meanwhile, or the pools have less than they told: that is want of space, not of order.
    const full = lastError === null || isKind(lastError, "resource-exhausted");
    throw new SvcError(
      full ? "resource-exhausted" : "failed-precondition",
      `Cannot create volume ${uuid}: ${have} of ${wanted.num_replicas} replicas were created`,
      lastError === null ? {} : { cause: lastError },
    );
  }
  await specs.volumes.commit(uuid);
  log.info("volume created", { "volume.uuid": uuid, size: spec.size, replicas: spec.num_replicas });
}

export function destroyVolume(core: Core, uuid: string): Promise<void> {
  core.specs.volumes.get(uuid);
  return core.guards.run(`volume/${uuid}`, () => destroyVolumeHeld(core, uuid));
}

/** For callers that hold the volume's guard. Safe to repeat. */
export async function destroyVolumeHeld(core: Core, uuid: string): Promise<void> {
  const { specs, log } = core;
  const spec = specs.volumes.find(uuid);
  if (!spec) return;
  if (spec.operation) await specs.volumes.condemn(uuid);
  await specs.volumes.carryOut(uuid, "Destroy", () => tearDown(core, spec), { destroys: true });
  log.info("volume destroyed", { "volume.uuid": uuid });
}

async function tearDown(core: Core, spec: VolumeSpec): Promise<void> {
  const nexuses = nexusesOfVolume(core, spec.uuid);
  for (const nexus of nexuses) await destroyNexusLazily(core, nexus.uuid);
  const infos = new Set(nexuses.map((nexus) => nexus.uuid));
  if (spec.target) infos.add(spec.target.nexus);
  if (spec.last_nexus_id !== null) infos.add(spec.last_nexus_id);
  for (const nexus of infos) await deleteNexusInfo(core, { volume: spec.uuid, nexus });
  // And those of targets that never came to be.
  for (const { key } of await core.store.list(core.keys.nexusInfosOf(spec.uuid))) {
    await core.write([{ op: "delete", key }]);
  }
  for (const replica of replicasOfVolume(core, spec.uuid)) {
    await destroyOrDisown(core, replica.uuid);
  }
}

function withVolume<T>(
  core: Core,
  uuid: string,
  work: (spec: VolumeSpec) => Promise<T>,
): Promise<T> {
  const { specs, guards } = core;
  specs.volumes.get(uuid);
  return guards.run(`volume/${uuid}`, async () => {
    const spec = specs.volumes.get(uuid);
    const phase = specs.volumes.phase(spec);
    if (phase === "Creating") {
      throw new SvcError("failed-precondition", `Volume ${uuid} is still being created`);
    }
    if (phase !== "Created") throw new SvcError("deleting", `Volume ${uuid} is being deleted`);
    return await work(spec);
  });
}

export function publishVolume(core: Core, uuid: string, request: PublishRequest): Promise<void> {
  const group = core.specs.volumes.get(uuid).affinity_group?.id;
  const work = () => withVolume(core, uuid, (spec) => publish(core, spec, request));
  return group === undefined ? work() : core.guards.run(`group/${group}`, work);
}

export function republishVolume(
  core: Core,
  uuid: string,
  request: RepublishRequest,
  recreate: Recreate,
): Promise<void> {
  return withVolume(core, uuid, (spec) => republish(core, spec, request, recreate));
}

export function unpublishVolume(
  core: Core,
  uuid: string,
  options: { readonly force: boolean; readonly isDown: (node: string) => Promise<boolean> },
): Promise<void> {
  return withVolume(core, uuid, (spec) => unpublish(core, spec, options));
}

export function shareVolume(
  core: Core,
  uuid: string,
  request: { readonly protocol: string; readonly frontendHosts: readonly string[] },
): Promise<string> {
  return withVolume(core, uuid, (spec) => shareTarget(core, spec, request));
}

export function unshareVolume(core: Core, uuid: string): Promise<void> {
  return withVolume(core, uuid, async ({ target }) => {
    if (!target?.active) throw new SvcError("not-published", `Volume ${uuid} is not published`);
    if (target.protocol === null) throw new SvcError("not-shared", `Volume ${uuid} is not shared`);
    await core.specs.volumes.carryOut(uuid, "Unshare", () => unshareNexus(core, target.nexus));
  });
}

/** @throws {SvcError} `failed-precondition`: see the published rules */
export function setReplicaCount(core: Core, uuid: string, count: number): Promise<void> {
  return withVolume(core, uuid, async (spec) => {
    checkReplicaCount(core, spec, count);
    if (count > spec.num_replicas) await increase(core, spec, count);
    else await decrease(core, spec, count);
    core.log.info("volume has another number of replicas", { "volume.uuid": uuid, count });
  });
}

function checkReplicaCount(core: Core, spec: VolumeSpec, count: number): void {
  const refuse = (why: string) =>
    new SvcError(
      "failed-precondition",
      `Cannot set ${count} replicas of volume ${spec.uuid}: ${why}`,
    );
  const present = spec.num_replicas;
  if (count === present) throw refuse("it has that many");
  if (count === 0) throw refuse("the last replica cannot be removed");
  if (Math.abs(count - present) > 1) throw refuse(`it has ${present}; change by one at a time`);
  if (spec.affinity_group && count < 2 && present >= 2) {
    throw refuse("a volume of an affinity group keeps at least 2");
  }
  if (count < present) return;
  const nexus = spec.target?.active ? core.registry.nexus(spec.target.nexus) : undefined;
  const ownedReplicas = replicasOfVolume(core, spec.uuid).length;
  const status = volumeStatus(spec, { nexus, ownedReplicas });
  if (status !== "Online") throw refuse(`the volume is ${status.toLowerCase()}`);
}

async function increase(core: Core, spec: VolumeSpec, count: number): Promise<void> {
  const { specs } = core;
  const surplus = replicasOfVolume(core, spec.uuid).length >= count;
  const replica = await specs.volumes.carryOut(spec.uuid, { SetReplica: count }, async () =>
    surplus ? null : await addReplica(core, spec, count),
  );
  if (replica !== null) await tryAttach(core, spec, replica);
}

async function decrease(core: Core, spec: VolumeSpec, count: number): Promise<void> {
  const { specs } = core;
  const owned = replicasOfVolume(core, spec.uuid).length;
  const victim = owned > count ? await planRemoval(core, spec, count) : null;
  if (owned > count && victim === null) {
    throw new SvcError(
      "failed-precondition",
      `Cannot set ${count} replicas of volume ${spec.uuid}: none can be spared now`,
    );
  }
  await specs.volumes.carryOut(spec.uuid, { SetReplica: count }, async () => {
    if (victim) await removeReplica(core, spec, victim.uuid);
  });
}

/**
 * Destroys the shut-down nexuses that earlier switch-overs left. The volume's present target stays even when a
 * switch-over that stopped halfway shut it down: it is brought back.
 */
export function destroyShutdownTargets(core: Core, uuid: string): Promise<void> {
  core.specs.volumes.get(uuid);
  return core.guards.run(`volume/${uuid}`, async () => {
    const target = core.specs.volumes.find(uuid)?.target;
    const present = target?.active ? target.nexus : null;
    const old = nexusesOfVolume(core, uuid).filter(
      (nexus) => isShutdown(nexus) && nexus.uuid !== present,
    );
    for (const nexus of old) await destroyNexusLazily(core, nexus.uuid);
  });
}

/** What a crash left of an operation on a volume. Callers hold its guard. */
export async function resolveVolume(core: Core, spec: VolumeSpec): Promise<void> {
  const { specs } = core;
  if (!spec.operation) return;
  const { uuid } = spec;
  const { operation } = spec.operation;
  const finish = async (done: boolean) => {
    if (done) await specs.volumes.commit(uuid);
    else await specs.volumes.cancel(uuid);
  };
  const owned = replicasOfVolume(core, uuid);
  const whole = owned.filter((replica) => specs.replicas.phase(replica) === "Created").length;
  if (operation === "Create") {
    if (whole >= spec.num_replicas) await finish(true);
    else await specs.volumes.condemn(uuid); // its creator asks again
  } else if (operation === "Destroy") {
    await specs.volumes.condemn(uuid);
  } else if (operation === "Unpublish") {
    const nexus = spec.target ? specs.nexuses.find(spec.target.nexus) : undefined;
    await finish(nexus === undefined || specs.nexuses.phase(nexus) === "Deleting");
  } else if (operation === "Unshare") {
    await finish(spec.target !== null && specs.nexuses.find(spec.target.nexus)?.share === "none");
  } else if ("Share" in operation) {
    await finish(spec.target !== null && specs.nexuses.find(spec.target.nexus)?.share === "nvmf");
  } else if ("SetReplica" in operation) {
    await finish(whole === operation.SetReplica);
  } else if ("RemoveUnusedReplica" in operation) {
    await finish(specs.replicas.find(operation.RemoveUnusedReplica) === undefined);
  } else {
    await resolveTarget(core, targetOf(operation), finish);
  }
}

type TargetOp = Exclude<
  NonNullable<VolumeSpec["operation"]>["operation"],
  string | { Share: unknown } | { SetReplica: unknown } | { RemoveUnusedReplica: unknown }
>;

function targetOf(operation: TargetOp): { nexus: string; shared: boolean } {
  if ("Publish2" in operation) {
    const { nexus, protocol } = operation.Publish2.config;
    return { nexus, shared: protocol !== null };
  }
  if ("Republish" in operation) {
    const { nexus, protocol } = operation.Republish.config;
    return { nexus, shared: protocol !== null };
  }
  const [, nexus, protocol] = operation.Publish;
  return { nexus, shared: protocol !== null };
}

/** A target that came to be is kept; of any other nothing stays. */
async function resolveTarget(
  core: Core,
  { nexus, shared }: { readonly nexus: string; readonly shared: boolean },
  finish: (done: boolean) => Promise<void>,
): Promise<void> {
  const { specs, registry } = core;
  const spec = specs.nexuses.find(nexus);
  if (spec?.operation) return; // the nexus's own operation is resolved first
  const built =
    spec !== undefined &&
    specs.nexuses.phase(spec) === "Created" &&
    registry.nexus(nexus) !== undefined &&
    (!shared || spec.share === "nvmf");
  if (built) {
    await finish(true);
    return;
  }
  const unknown = spec && !registry.isOnline(spec.node) && !registry.isDown(spec.node);
  if (unknown) return; // its node has not reported yet: a later pass knows more
  if (spec) await destroyNexusLazily(core, nexus);
  await finish(false);
}
