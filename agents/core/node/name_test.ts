/** A node name used twice: who keeps it, who is told what, and when the other one gets it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { FakeEngine } from "../testing/fake_engine.ts";
import { call, Rig } from "../testing/rig.ts";
import { type Answer, type Claim, mayTakeName } from "./name.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";

test("mayTakeName keeps a name with whoever answers for it", () => {
  const holder: Claim = { endpoint: "10.0.0.1:10124", instanceUuid: "a" };
  const answer: Answer = { node: "n", endpoint: "10.0.0.1:10124", instanceUuid: "a" };
  const elsewhere: Claim = { endpoint: "10.0.0.2:10124", instanceUuid: "b" };
  const untold = { instanceUuid: null } as const;
  const cases: [string, Partial<Claim>, Claim, Partial<Answer> | null, boolean][] = [
    ["its own word", {}, holder, {}, true],
    ["its own word, without an instance", {}, { ...holder, ...untold }, {}, true],
    ["another engine elsewhere", {}, elsewhere, {}, false],
    ["nobody answers", {}, elsewhere, null, true],
    ["the address has another owner", {}, elsewhere, { node: "m", instanceUuid: "c" }, true],
    ["the same process, another address", {}, elsewhere, { instanceUuid: "b" }, true],
    ["it restarted where it was", {}, elsewhere, { instanceUuid: "c" }, false],
    ["an engine that tells nothing", untold, elsewhere, { node: null, ...untold }, false],
    ["neither tells", untold, { ...elsewhere, ...untold }, untold, false],
    [
      "one process at two addresses that tells no instance",
      untold,
      { ...elsewhere, ...untold },
      { ...untold, endpoint: elsewhere.endpoint },
      true,
    ],
    ["a restart in place", {}, { ...holder, instanceUuid: "b" }, { instanceUuid: "b" }, true],
    ["two behind one address", {}, { ...holder, instanceUuid: "b" }, {}, false],
    ["a restart in place, untold", {}, { ...holder, instanceUuid: "b" }, untold, true],
  ];
  for (const [name, had, claim, said, wanted] of cases) {
    const input = { id: "n", holder: { ...holder, ...had }, claim };
    const got = mayTakeName({ ...input, answer: said && { ...answer, ...said } });
    assert.equal(got, wanted, name);
  }
});

describe("a node name used twice", () => {
  const twins = async (): Promise<{ rig: Rig; first: FakeEngine; second: FakeEngine }> => {
    const rig = await Rig.start({ nodes: 3 });
    await rig.createPools();
    await rig.createVolume(V1, { replicas: 2 });
    await rig.publish(V1, "node-1");
    await rig.settle();
    const first = rig.cluster.engine("node-1");
    const second = rig.cluster.addTwin("node-1");
    return { rig, first, second };
  };
  const register = (rig: Rig, { endpoint, instanceUuid, node, tellsInstance }: FakeEngine) =>
    rig.agent.nodes.register({
      id: node,
      endpoint,
      instanceUuid: tellsInstance ? instanceUuid : null,
      hostNqn: null,
    });
  const madeTargets = (rig: Rig) =>
    rig.cluster.calls.filter((name) => name.endsWith(" createNexus")).length;

  for (const tells of [true, false]) {
    test(`the first that answers keeps it and its targets stay (instance told: ${tells})`, async () => {
      const { rig, first, second } = await twins();
      first.tellsInstance = tells;
      second.tellsInstance = tells;
      await register(rig, first);
      const made = madeTargets(rig);
      for (let round = 0; round < 5; round++) {
        await assert.rejects(register(rig, second), { kind: "already-exists" });
        await register(rig, first);
        await rig.agent.loop.pass(new AbortController().signal);
      }
      assert.equal(madeTargets(rig), made);
      const node = await call(rig.api, "GetNode", { node: "node-1" });
      assert.equal(node.spec?.grpcEndpoint, first.endpoint);
      assert.equal(node.state?.status, "Online");
      assert.equal(node.state?.status_reason?.code, "name-used-twice");
      assert.equal((await rig.volume(V1)).state.status, "Online");
      await rig.close();
    });
  }

  test("the second's going changes nothing, whether it says who it is or not", async () => {
    const { rig, second } = await twins();
    await assert.rejects(register(rig, second), { kind: "already-exists" });
    await rig.agent.nodes.deregister("node-1");
    assert.equal(rig.core.registry.isOnline("node-1"), true);
    await rig.agent.nodes.deregister("node-1", second.instanceUuid);
    assert.equal(rig.core.registry.isOnline("node-1"), true);
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.equal(node.state?.status_reason, undefined);
    await rig.close();
  });

  test("the second gets it when the first is gone, and the first is then the one that is refused", async () => {
    const { rig, first, second } = await twins();
    await assert.rejects(register(rig, second), { kind: "already-exists" });
    first.alive = false;
    const taking = register(rig, second);
    await rig.clock.advance(1000);
    await taking;
    assert.equal(rig.core.registry.node("node-1")?.endpoint, second.endpoint);
    first.alive = true;
    await assert.rejects(register(rig, first), { kind: "already-exists" });
    await rig.close();
  });

  test("an engine that says it goes frees its name although it still answers", async () => {
    const { rig, first, second } = await twins();
    await rig.agent.nodes.deregister("node-1", first.instanceUuid);
    await register(rig, second);
    assert.equal(rig.core.registry.node("node-1")?.endpoint, second.endpoint);
    await rig.close();
  });

  test("after a restart of the agent the store says who has it", async () => {
    const { rig, first, second } = await twins();
    rig.crashAgent();
    rig.cluster.engines.pop(); // says nothing while the agent starts
    await rig.startAgent();
    rig.cluster.engines.push(second);
    await assert.rejects(register(rig, second), { kind: "already-exists" });
    assert.equal(rig.core.registry.node("node-1")?.endpoint, first.endpoint);
    await rig.close();
  });

  test("an address that another node has now does not keep its former owner's name", async () => {
    const { rig, first, second } = await twins();
    first.node = "node-9";
    assert.equal(await rig.agent.nodes.isDown("node-1"), true);
    await register(rig, second);
    assert.equal(rig.core.registry.node("node-1")?.endpoint, second.endpoint);
    await rig.close();
  });
});
