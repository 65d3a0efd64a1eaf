/** Which name a publication gets, over what may happen to targets, engines and hosts. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { call, Rig } from "../testing/rig.ts";

const V1 = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a11";
const NQN = `nqn.2019-05.io.openebs:${V1}`;
const hostOf = (node: string) => `nqn.2019-05.io.openebs:node-name:${node}`;

async function withVolume(work: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await Rig.start();
  try {
    await rig.createPools();
    await rig.createVolume(V1);
    await work(rig);
  } finally {
    await rig.close();
  }
}

const publishTo = (rig: Rig, host: string, node = "node-1") =>
  call(rig.api, "PublishVolume", {
    ...{ volume: V1, node, protocol: "nvmf", publishContext: {}, frontendNodes: [host] },
  });
const unpublish = (rig: Rig, force = false) =>
  call(rig.api, "UnpublishVolume", { volume: V1, force });
const nqn = async (rig: Rig) => {
  const uri = (await rig.volume(V1)).state.target?.deviceUri ?? "";
  return /^nvmf:\/\/[^/]+\/([^?]+)/.exec(uri)?.[1];
};
/** The host was connected to the target on the node, and has so many controllers that it did not shut down. */
const seen = (
  rig: Rig,
  { node = "node-1", host, open }: { node?: string; host: string; open: number },
) => {
  for (const nexus of rig.cluster.engine(node).nexuses.values())
    nexus.hosts.set(hostOf(host), open);
};

describe("a publication", () => {
  test("has the documented name at first, and after ends that were seen to be clean", () =>
    withVolume(async (rig) => {
      for (const host of ["app-1", "app-2", "app-1"]) {
        await publishTo(rig, host);
        assert.equal(await nqn(rig), NQN);
        seen(rig, { host, open: 0 });
        await unpublish(rig);
      }
      await publishTo(rig, "app-1");
      await unpublish(rig);
      await publishTo(rig, "app-2");
      assert.equal(await nqn(rig), NQN, "nobody connected to the one before");
    }));

  test("has another name while a host that was cut off may come back with an earlier one", () =>
    withVolume(async (rig) => {
      await publishTo(rig, "app-1");
      seen(rig, { host: "app-1", open: 1 }); // its network goes
      await unpublish(rig);
      await publishTo(rig, "app-2");
      assert.equal(await nqn(rig), `${NQN}:1`);
      seen(rig, { host: "app-2", open: 0 });
      await unpublish(rig);
      await publishTo(rig, "app-1");
      assert.equal(
        await nqn(rig),
        `${NQN}:2`,
        "the documented name is what the cut-off host waits for",
      );
      seen(rig, { host: "app-1", open: 0 });
      await unpublish(rig);
      await publishTo(rig, "app-1");
      assert.equal(await nqn(rig), NQN, "it has left a later one well, so it holds no earlier one");
    }));

  test("keeps its name when its target is made again or moved, and its end then counts only for hosts that were seen", () =>
    withVolume(async (rig) => {
      await publishTo(rig, "app-1");
      rig.cluster.engine("node-1").restart();
      await rig.settle();
      assert.equal(await nqn(rig), NQN);
      await unpublish(rig); // the new target has never seen app-1
      await publishTo(rig, "app-1");
      assert.equal(await nqn(rig), `${NQN}:1`);
      await call(rig.api, "RepublishVolume", {
        ...{ volume: V1, node: "node-2", protocol: "nvmf", reuseExisting: false, frontendNode: "" },
      });
      assert.equal((await rig.volume(V1)).state.target?.node, "node-2");
      assert.equal(await nqn(rig), `${NQN}:1`, "another path joins the same namespace");
      seen(rig, { node: "node-2", host: "app-1", open: 0 });
      await unpublish(rig);
      await publishTo(rig, "app-1");
      assert.equal(await nqn(rig), NQN);
    }));

  test("whose end nobody can tell of is taken for one that a host still holds", () =>
    withVolume(async (rig) => {
      const engine = rig.cluster.engine("node-1");
      await publishTo(rig, "app-1");
      engine.reachable = false;
      await rig.look();
      await unpublish(rig, true);
      await publishTo(rig, "app-2", "node-2");
      assert.equal(await nqn(rig), `${NQN}:1`);
      engine.reachable = true;
      await rig.settle();
      rig.cluster.engine("node-2").tellsNoHosts = true; // another implementation
      await unpublish(rig);
      await publishTo(rig, "app-2", "node-2");
      assert.equal(await nqn(rig), `${NQN}:2`);
    }));

  test("of an earlier release ends as one that its hosts may hold", () =>
    withVolume(async (rig) => {
      await publishTo(rig, "app-1");
      await rig.core.specs.volumes.update(V1, (spec) => ({ ...spec, publication: null }));
      await unpublish(rig);
      await publishTo(rig, "app-1");
      assert.equal(await nqn(rig), `${NQN}:1`);
    }));
});
