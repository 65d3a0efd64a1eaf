/**
 * Nexus operations: create, share, children, shutdown, destroy.
 *
 * Invariants: what the engine answers is put into the registry at once; a nexus that may exist (its engine never
 * answered) is condemned, so that garbage collection destroys it when its node is back; a nexus is destroyed
 * before its spec is forgotten.
 */
import { isKind, SvcError } from "#common/errors.ts";
import {
  childUri,
  isShutdown,
  type NexusChild,
  type NexusSpec,
  type NvmfConfig,
} from "#common/types/nexus.ts";
import type { PublicationEnd } from "#common/types/publication.ts";
import { type Core, deleteNexusInfo, withRebuildSlot } from "../context.ts";
import type { NexusState } from "../engine/client.ts";

export type CreateNexusRequest = {
  readonly uuid: string;
  /** Of the subsystem too; absent: the uuid. */
  readonly name?: string;
  readonly node: string;
  readonly children: readonly NexusChild[];
  readonly size: number;
  readonly owner: string | null;
  readonly config: NvmfConfig | null;
};

/** The NexusInfo of a nexus is kept under its volume's name. */
export function infoKeyOf(core: Core, { owner, uuid }: Pick<NexusSpec, "owner" | "uuid">): string {
  return core.keys.nexusInfo(owner, uuid);
}

async function callCreate(core: Core, spec: NexusSpec): Promise<NexusState> {
  const { registry } = core;
  const engine = registry.engine(spec.node);
  try {
    const state = await engine.createNexus({
      uuid: spec.uuid,
      name: spec.name,
      size: spec.size,
      children: spec.children.map(childUri),
      config: spec.nvmf_config,
      infoKey: infoKeyOf(core, spec),
    });
    return registry.putNexus(state);
  } catch (error) {
    if (!isKind(error, "already-exists")) throw error;
    const { nexuses } = await engine.load();
    const state = nexuses.find((nexus) => nexus.uuid === spec.uuid);
    if (!state) throw error;
    return registry.putNexus(state);
  }
}

export function createNexus(core: Core, request: CreateNexusRequest): Promise<NexusState> {
  const { specs, registry, guards, log } = core;
  const { uuid, node, children, size, owner, config } = request;
  return guards.run(`nexus/${uuid}`, async () => {
    registry.engine(node); // before anything is written down
    const found = specs.nexuses.find(uuid);
    if (found) checkRecreate(core, found, request);
    const spec =
      found ??
      (await specs.nexuses.insert({
        uuid,
        name: request.name ?? owner ?? uuid,
        node,
        children: [...children],
        size,
        spec_status: "Creating",
        share: "none",
        managed: owner !== null,
        owner,
        operation: { operation: "Create", result: null },
        nvmf_config: config,
        status_info: { shutdown_failed: false },
        allowed_hosts: [],
      }));
    let state: NexusState;
    try {
      state = await callCreate(core, spec);
    } catch (error) {
      if (isKind(error, "unavailable", "deadline-exceeded", "aborted", "internal")) {
        await specs.nexuses.condemn(uuid);
      } else {
        await specs.nexuses.remove(uuid);
      }
      throw error;
    }
    await specs.nexuses.commit(uuid);
    log.info("nexus created", { "nexus.uuid": uuid, "node.id": node, "volume.uuid": owner });
    return state;
  });
}

function checkRecreate(core: Core, spec: NexusSpec, request: CreateNexusRequest): void {
  const phase = core.specs.nexuses.phase(spec);
  if (phase === "Creating") {
    const same =
      spec.node === request.node &&
      spec.size === request.size &&
      spec.children.map(childUri).join("\n") === request.children.map(childUri).join("\n");
    if (same) return;
    throw new SvcError(
      "conflict",
      `Cannot create nexus ${spec.uuid}: other parameters than before`,
    );
  }
  if (phase === "Created") {
    throw new SvcError("already-exists", `Cannot create nexus ${spec.uuid}: it already exists`);
  }
  throw new SvcError("deleting", `Cannot create nexus ${spec.uuid}: it is being deleted`);
}

/** Makes a nexus again that its engine lost, over other children if need be, and shares it as it was. */
export async function recreateNexus(
  core: Core,
  uuid: string,
  children: readonly NexusChild[],
): Promise<NexusState> {
  const { specs, guards, log } = core;
  return await guards.run(`nexus/${uuid}`, async () => {
    const spec = await specs.nexuses.update(uuid, (old) => ({ ...old, children: [...children] }));
    const state = await callCreate(core, spec);
    if (isShutdown(spec)) await specs.nexuses.update(uuid, asOpen);
    log.info("nexus created again", { "nexus.uuid": uuid, "node.id": spec.node });
    if (spec.share !== "nvmf") return state;
    return await callShare(core, spec, spec.allowed_hosts);
  });
}

function asOpen(spec: NexusSpec): NexusSpec {
  return {
    ...spec,
    spec_status: { Created: "Online" },
    status_info: { shutdown_failed: false },
  };
}

async function callShare(
  core: Core,
  spec: NexusSpec,
  allowedHosts: readonly string[],
): Promise<NexusState> {
  const engine = core.registry.engine(spec.node);
  return core.registry.putNexus(await engine.shareNexus({ uuid: spec.uuid, allowedHosts }));
}

export function shareNexus(
  core: Core,
  uuid: string,
  allowedHosts: readonly string[],
): Promise<NexusState> {
  const { specs, guards } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const spec = specs.nexuses.get(uuid);
    return await specs.nexuses.carryOut(uuid, { Share: ["nvmf", [...allowedHosts]] }, () =>
      callShare(core, spec, allowedHosts),
    );
  });
}

export function unshareNexus(core: Core, uuid: string): Promise<NexusState> {
  const { specs, registry, guards } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const engine = registry.engine(specs.nexuses.get(uuid).node);
    return await specs.nexuses.carryOut(uuid, "Unshare", async () =>
      registry.putNexus(await engine.unshareNexus(uuid)),
    );
  });
}

/** Takes the nexus from its hosts; how they had left it by then, or null when nobody knows. */
export function endPublication(core: Core, uuid: string): Promise<PublicationEnd | null> {
  const { specs, registry, guards } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const spec = specs.nexuses.find(uuid);
    if (spec?.share !== "nvmf") return null;
    try {
      return await registry.engine(spec.node).endPublication(uuid);
    } catch (error) {
      // Its engine lost it, and with it what it knew; or does not answer, which destroying it will tell.
      if (isKind(error, "not-found", "unavailable", "deadline-exceeded")) return null;
      throw error;
    }
  });
}

/** Adds a child, whose rebuild then starts. @throws {SvcError} `resource-exhausted` at the rebuild limit */
export function addChild(core: Core, uuid: string, child: NexusChild): Promise<NexusState> {
  const { specs, registry, guards, log } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const spec = specs.nexuses.get(uuid);
    const engine = registry.engine(spec.node);
    const uri = childUri(child);
    const state = await withRebuildSlot(core, () =>
      specs.nexuses.carryOut(uuid, { AddChild: child }, async () =>
        registry.putNexus(await engine.addChild({ nexus: uuid, uri })),
      ),
    );
    log.info("child added", { "nexus.uuid": uuid, "child.uri": uri });
    return state;
  });
}

export function removeChild(core: Core, uuid: string, uri: string): Promise<NexusState> {
  const { specs, registry, guards, log } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const spec = specs.nexuses.get(uuid);
    const engine = registry.engine(spec.node);
    const child = spec.children.find((known) => childUri(known) === uri) ?? { Uri: uri };
    const state = await specs.nexuses.carryOut(uuid, { RemoveChild: child }, async () =>
      registry.putNexus(await engine.removeChild({ nexus: uuid, uri })),
    );
    log.info("child removed", { "nexus.uuid": uuid, "child.uri": uri });
    return state;
  });
}

/** Brings a faulted child back: by a partial rebuild when its write log exists. */
export function onlineChild(core: Core, uuid: string, uri: string): Promise<NexusState> {
  const { specs, registry, guards, log } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const engine = registry.engine(specs.nexuses.get(uuid).node);
    const state = await withRebuildSlot(core, async () =>
      registry.putNexus(await engine.onlineChild({ nexus: uuid, uri })),
    );
    log.info("child brought online", { "nexus.uuid": uuid, "child.uri": uri });
    return state;
  });
}

/**
 * Shuts a nexus down, so that another may take over. Always ends in Shutdown: when the engine could not be
 * asked, the spec remembers that its nexus may still be at work.
 */
export function shutdownNexus(core: Core, uuid: string): Promise<void> {
  const { specs, registry, guards, log } = core;
  return guards.run(`nexus/${uuid}`, async () => {
    const spec = specs.nexuses.get(uuid);
    if (isShutdown(spec) && !spec.status_info.shutdown_failed) return;
    if (spec.operation) await specs.nexuses.cancel(uuid); // whatever it was, it is over
    await specs.nexuses.begin(uuid, "Shutdown");
    let failed = false;
    try {
      registry.putNexus(await registry.engine(spec.node).shutdownNexus(uuid));
    } catch (error) {
      failed = !isKind(error, "not-found");
      if (failed) log.warn("nexus cannot be shut down", { "nexus.uuid": uuid, error });
    }
    const remember = async () => {
      const status_info = { shutdown_failed: failed };
      await specs.nexuses.update(uuid, (old) => ({ ...old, status_info }));
    };
    // A crash in between must not leave a nexus that may be at work as one that is surely not.
    if (failed) await remember();
    await specs.nexuses.commit(uuid);
    if (!failed && spec.status_info.shutdown_failed) await remember();
    log.info("nexus shut down", { "nexus.uuid": uuid, "node.id": spec.node, failed });
  });
}

export function destroyNexus(core: Core, uuid: string): Promise<void> {
  return core.guards.run(`nexus/${uuid}`, () => destroyNexusHeld(core, uuid));
}

/** For callers that hold the nexus's guard. */
export async function destroyNexusHeld(core: Core, uuid: string): Promise<void> {
  const { specs, registry, log } = core;
  const spec = specs.nexuses.find(uuid);
  if (!spec) return;
  // Before anything is written down: a refusal must not be carried out later.
  const engine = registry.engine(spec.node);
  if (spec.operation) await specs.nexuses.condemn(uuid);
  const destroy = async () => {
    try {
      await engine.destroyNexus(uuid);
    } catch (error) {
      if (!isKind(error, "not-found")) throw error;
    }
  };
  await specs.nexuses.carryOut(uuid, "Destroy", destroy, { destroys: true });
  registry.dropNexus(spec.node, uuid);
  log.info("nexus destroyed", { "nexus.uuid": uuid, "node.id": spec.node });
  if (spec.owner !== null && specs.volumes.find(spec.owner)) return; // its volume may want to read it
  // Its engine has just written its NexusInfo once more, and nobody will ever read it.
  await deleteNexusInfo(core, { volume: spec.owner, nexus: uuid }).catch((error: unknown) => {
    log.warn("NexusInfo of a destroyed nexus stays", { "nexus.uuid": uuid, error });
  });
}

/** Destroys a nexus now, or leaves that to garbage collection: its spec stays Deleting. */
export async function destroyNexusLazily(core: Core, uuid: string): Promise<void> {
  try {
    await destroyNexus(core, uuid);
  } catch (error) {
    core.log.info("nexus is destroyed later", { "nexus.uuid": uuid, error });
    const spec = core.specs.nexuses.find(uuid);
    if (spec && core.specs.nexuses.phase(spec) !== "Deleting") {
      await core.specs.nexuses.condemn(uuid);
    }
  }
}

/** What a crash left of an operation on a nexus. */
export async function resolveNexus(core: Core, spec: NexusSpec): Promise<void> {
  const { specs, registry } = core;
  if (!spec.operation) return;
  const offline = registry.isDown(spec.node);
  if (!offline && !registry.isOnline(spec.node)) return; // nobody can say yet
  const state = registry.nexus(spec.uuid);
  const { operation } = spec.operation;
  if (operation === "Create") {
    if (state) await specs.nexuses.commit(spec.uuid);
    else await specs.nexuses.condemn(spec.uuid);
    return;
  }
  if (operation === "Destroy") {
    await specs.nexuses.condemn(spec.uuid); // destroying is safe to repeat
    return;
  }
  if (state && wasCarriedOut(operation, state)) await specs.nexuses.commit(spec.uuid);
  else await specs.nexuses.cancel(spec.uuid);
}

function wasCarriedOut(
  operation: Exclude<NonNullable<NexusSpec["operation"]>["operation"], "Create" | "Destroy">,
  state: NexusState,
): boolean {
  if (operation === "Shutdown") return state.status === "Shutdown";
  if (operation === "Unshare") return state.share === "none";
  if ("Share" in operation) return state.share === "nvmf";
  const has = (child: NexusChild) => state.children.some((known) => known.uri === childUri(child));
  return "AddChild" in operation ? has(operation.AddChild) : !has(operation.RemoveChild);
}
