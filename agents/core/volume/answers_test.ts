/** What is answered and what then happens: nothing that is refused is carried out later, and what goes on says so. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SvcError, type SvcErrorKind } from "#common/errors.ts";
import { MemoryStore } from "#common/store/memory.ts";
import { call, Rig } from "../testing/rig.ts";

const V1 = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a11";
const RAW = "7f2a54b6-53de-4a5e-a0c5-0f2d6fd1a001";
const KINDS: readonly SvcErrorKind[] = [
  ...(["failed-precondition", "invalid-argument", "conflict", "aborted"] as const),
  ...(["unavailable", "deadline-exceeded", "internal", "resource-exhausted"] as const),
];
/** Kinds that tell a client: nothing will happen. */
const REFUSALS: readonly SvcErrorKind[] = [
  ...(["failed-precondition", "invalid-argument", "conflict", "not-found", "in-use"] as const),
  ...(["already-exists", "not-published", "not-shared", "already-shared"] as const),
];

/** One thing that is asked for, the engine's call that fails, and a look at what has come of it. */
const ASKS: readonly {
  readonly what: string;
  readonly fails: string;
  readonly ask: (rig: Rig) => Promise<unknown>;
  readonly look: (rig: Rig) => Promise<unknown>;
}[] = [
  {
    what: "unpublish",
    fails: "destroyNexus",
    ask: (rig) => call(rig.api, "UnpublishVolume", { volume: V1, force: false }),
    look: async (rig) => (await rig.volume(V1)).spec.target?.node,
  },
  {
    what: "unpublish by force",
    fails: "endPublication",
    ask: (rig) => call(rig.api, "UnpublishVolume", { volume: V1, force: true }),
    look: async (rig) => (await rig.volume(V1)).spec.target?.node,
  },
  {
    what: "unshare",
    fails: "unshareNexus",
    ask: (rig) => call(rig.api, "UnshareVolume", { volume: V1 }),
    look: async (rig) => (await rig.volume(V1)).state.target?.deviceUri,
  },
  {
    what: "move",
    fails: "createNexus",
    ask: (rig) =>
      call(rig.api, "RepublishVolume", {
        ...{ volume: V1, node: "node-2", protocol: "nvmf", reuseExisting: false, frontendNode: "" },
      }),
    look: async (rig) => (await rig.volume(V1)).state.target?.node,
  },
  {
    what: "destroy a volume",
    fails: "destroyReplica",
    ask: (rig) => call(rig.api, "DestroyVolume", { volume: V1 }),
    look: async (rig) => rig.core.specs.volumes.find(V1)?.uuid,
  },
  {
    what: "destroy a nexus",
    fails: "destroyNexus",
    ask: (rig) => call(rig.api, "DestroyNexus", { nexus: RAW }),
    look: async (rig) => rig.core.registry.nexus(RAW)?.uuid,
  },
  {
    what: "share a nexus",
    fails: "shareNexus",
    ask: (rig) => call(rig.api, "ShareNexus", { nexus: RAW, protocol: "nvmf" }),
    look: async (rig) => rig.core.registry.nexus(RAW)?.share,
  },
  {
    what: "add a child",
    fails: "addChild",
    ask: async (rig) =>
      call(rig.api, "AddNexusChild", { nexus: RAW, uri: await childUri(rig, "node-2") }),
    look: async (rig) => rig.core.registry.nexus(RAW)?.children.length,
  },
];

/** Of a replica that a person made, for one more child. */
async function childUri(rig: Rig, node: string): Promise<string> {
  const found = rig.core.registry
    .replicas(node)
    .find(({ uuid }) => rig.core.specs.replicas.get(uuid).owners.volume === null);
  assert.ok(found);
  return found.uri;
}

async function started(): Promise<Rig> {
  const rig = await Rig.start();
  await rig.createPools();
  await rig.createVolume(V1, { replicas: 2 });
  await rig.publish(V1, "node-1");
  const own = (n: number) => `7f2a54b6-53de-4a5e-a0c5-0f2d6fd1b00${n}`;
  for (const n of [1, 2]) {
    await call(rig.api, "CreateReplica", {
      ...{ replica: own(n), pool: `pool-${n}`, size: 2 ** 26, thin: false, share: "nvmf" },
      allowedHosts: [],
    });
  }
  const children = [await childUri(rig, "node-1")];
  await call(rig.api, "CreateNexus", { node: "node-1", nexus: RAW, children, size: 2 ** 25 });
  await rig.settle();
  return rig;
}

describe("an answer", () => {
  for (const { what, fails, ask, look } of ASKS) {
    test(`to ${what} that ${fails} fails says what then happens`, async () => {
      for (const kind of KINDS) {
        const rig = await started();
        try {
          const before = await look(rig);
          let failures = 1;
          rig.cluster.fault = ({ name }) => {
            if (name !== fails || failures === 0) return "ok";
            failures -= 1;
            throw new SvcError(kind, "no");
          };
          const error = await ask(rig).then(
            () => null,
            (thrown: unknown) => thrown as SvcError,
          );
          assert.equal(failures, 0, "the fault was met");
          await rig.settle();
          await rig.clock.advance(2_000);
          await rig.settle();
          const isDone = (await look(rig)) !== before;
          if (error === null) continue; // it is done, or lost nothing by it
          const says = /goes on by itself later/.test(error.message);
          assert.equal(isDone, says, `${kind}: ${error.message}`);
          if (isDone) assert.ok(!REFUSALS.includes(error.kind), error.kind);
        } finally {
          await rig.close();
        }
      }
    });
  }

  test("a share whose answer got lost can be taken back", async () => {
    const rig = await started();
    try {
      rig.cluster.fault = ({ name }) => (name === "shareNexus" ? "lost" : "ok");
      const share = () => call(rig.api, "ShareNexus", { nexus: RAW, protocol: "nvmf" });
      await assert.rejects(share(), { kind: "unavailable" });
      rig.cluster.fault = () => "ok";
      await rig.look();
      assert.equal(rig.core.registry.nexus(RAW)?.share, "nvmf");
      await call(rig.api, "UnshareNexus", { nexus: RAW });
      assert.equal(rig.core.registry.nexus(RAW)?.share, "none");
    } finally {
      await rig.close();
    }
  });

  test("that failed for want of the store's answer does not come true with the next agent", async () => {
    for (const fault of ["before", "after", "late"] as const) {
      const rig = await started();
      try {
        const { store } = rig;
        assert.ok(store instanceof MemoryStore);
        const other = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a12";
        const asks = [
          () => call(rig.api, "DestroyVolume", { volume: V1 }),
          () => call(rig.api, "DestroyNexus", { nexus: RAW }),
          () => rig.createVolume(other, { replicas: 1 }),
        ];
        for (const ask of asks) {
          let failures = 1;
          store.fault = ({ call: name }) => {
            if (name !== "txn" || failures === 0) return "none";
            failures -= 1;
            return fault;
          };
          await assert.rejects(ask(), { kind: "failed-persist" });
        }
        store.fault = () => "none";
        await rig.settle();
        store.deliverLate();
        rig.crashAgent();
        await rig.startAgent();
        await rig.settle();
        assert.equal((await rig.volume(V1)).state.status, "Online", fault);
        assert.equal(rig.core.registry.nexus(RAW)?.status, "Online", fault);
        assert.equal(rig.core.specs.volumes.find(other), undefined);
        assert.deepEqual(rig.core.specs.volumes.unsure, []);
      } finally {
        await rig.close();
      }
    }
  });

  test("that got lost when a replica was attached does not leave it in use while it is destroyed", async () => {
    const rig = await started();
    try {
      rig.cluster.fault = ({ name }) => (name === "addChild" ? "lost" : "ok");
      const scale = (replicas: number) =>
        call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas });
      await scale(3);
      rig.cluster.fault = () => "ok";
      await rig.look();
      const destroyed: string[] = [];
      const { data } = rig.cluster;
      data.onDestroy = (replica) => {
        const inUse = rig.cluster.openNexuses().flatMap(({ children }) => children);
        assert.ok(!inUse.some((uri) => uri.includes(replica)), "a child lost its replica");
        destroyed.push(replica);
      };
      while (rig.core.registry.nexuses("node-1").some(({ rebuilds }) => rebuilds > 0)) {
        await rig.cluster.rebuildStep();
        await rig.look();
      }
      await scale(2);
      assert.equal(destroyed.length, 1);
    } finally {
      await rig.close();
    }
  });
});
