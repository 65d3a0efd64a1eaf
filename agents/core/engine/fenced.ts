/**
 * EngineClient of a leader only: what changes something on an engine is begun while we surely lead, else refused.
 *
 * Why: the store refuses a former leader's writes, but engines know no leader. One that slept through its lease (a
 * machine that was suspended, a partition) would carry on with what it had begun: make a nexus that takes the replicas
 * from the present target, or a replica that no spec knows of.
 * Invariants: reads always pass; a call under way is not cut short: it ends by its own deadline.
 */
import { SvcError } from "#common/errors.ts";
import type { EngineClient, EngineConnector } from "./client.ts";

type Leads = () => boolean | Promise<boolean>;

export function fencedConnector(connect: EngineConnector, leads: Leads): EngineConnector {
  return (options) => fence(connect(options), options.node, leads);
}

function fence(client: EngineClient, node: string, leads: Leads): EngineClient {
  const led = async <T>(what: string, call: () => Promise<T>): Promise<T> => {
    if (await leads()) return await call();
    throw new SvcError(
      "unavailable",
      `Cannot ${what} on ${node}: the leader lease is not kept; it is tried again once it is`,
    );
  };
  return {
    probe: () => client.probe(),
    load: () => client.load(),
    targetHosts: () => client.targetHosts(),
    blockDevices: (options) => client.blockDevices(options),
    createPool: (request) => led("create a pool", () => client.createPool(request)),
    importPool: (request) => led("import a pool", () => client.importPool(request)),
    destroyPool: (id) => led("destroy a pool", () => client.destroyPool(id)),
    exportPool: (id) => led("export a pool", () => client.exportPool(id)),
    createReplica: (request) => led("create a replica", () => client.createReplica(request)),
    destroyReplica: (request) => led("destroy a replica", () => client.destroyReplica(request)),
    shareReplica: (request) => led("share a replica", () => client.shareReplica(request)),
    unshareReplica: (uuid) => led("unshare a replica", () => client.unshareReplica(uuid)),
    createNexus: (request) => led("create a nexus", () => client.createNexus(request)),
    destroyNexus: (uuid) => led("destroy a nexus", () => client.destroyNexus(uuid)),
    shutdownNexus: (uuid) => led("shut down a nexus", () => client.shutdownNexus(uuid)),
    shareNexus: (request) => led("share a nexus", () => client.shareNexus(request)),
    unshareNexus: (uuid) => led("unshare a nexus", () => client.unshareNexus(uuid)),
    endPublication: (nexus) => led("end a publication", () => client.endPublication(nexus)),
    addChild: (request) => led("add a child", () => client.addChild(request)),
    removeChild: (request) => led("remove a child", () => client.removeChild(request)),
    onlineChild: (request) => led("bring a child online", () => client.onlineChild(request)),
    close: () => client.close(),
  };
}
