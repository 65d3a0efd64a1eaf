import assert from "node:assert/strict";
import { test } from "node:test";
import { makeInstall } from "./config.ts";
import { parseSet } from "./set_option.ts";

test("parseSet() reads dotted names, typed values and escapes", () => {
  assert.deepEqual(parseSet("etcd.replicaCount=1,image.tag='2.2',a.b=x\\,y"), {
    etcd: { replicaCount: 1 },
    image: { tag: "2.2" },
    a: { b: "x,y" },
  });
  assert.deepEqual(parseSet("io_engine.nodeSelector.kubernetes\\.io/arch=null"), {
    io_engine: { nodeSelector: { "kubernetes.io/arch": null } },
  });
  assert.deepEqual(parseSet("io_engine.coreList=[1\\,2]"), { io_engine: { coreList: [1, 2] } });
  assert.deepEqual(parseSet(""), {});
  assert.throws(() => parseSet("etcd"), /write name=value/);
  assert.throws(() => parseSet("a..b=1"), /write name=value/);
  assert.throws(() => parseSet("a=[1"), /^SvcError: Cannot set a: /);
});

test("parseSet() keeps what two items say about one map", () => {
  assert.deepEqual(parseSet("a.b=1,a.c=2"), { a: { b: 1, c: 2 } });
  assert.deepEqual(parseSet("a=1,a.c=2"), { a: { c: 2 } });
});

test("parseSet() reads Helm's lists", () => {
  assert.deepEqual(parseSet("io_engine.coreList={3,4},b=1"), {
    io_engine: { coreList: [3, 4] },
    b: 1,
  });
  assert.deepEqual(parseSet("a={}"), { a: [] });
  assert.deepEqual(parseSet("a={x\\,y,z}"), { a: ["x,y", "z"] });
  assert.deepEqual(parseSet("a=[1,2],b={3}"), { a: [1, 2], b: [3] });
  const values = [parseSet("io_engine.coreList={3,4}")];
  assert.deepEqual(makeInstall({ values, version: "1" }).values.io_engine.coreList, [3, 4]);
});

test("parseSet() sets items of lists by number", () => {
  assert.deepEqual(
    parseSet("tolerations[0].key=a,tolerations[0].operator=Exists,tolerations[1].key=b,m[0][1]=x"),
    {
      tolerations: [{ key: "a", operator: "Exists" }, { key: "b" }],
      m: [Object.assign([], { 1: "x" })],
    },
  );
  assert.throws(() => parseSet("a[1000000000]=1"), /write name=value/);
});

test("parseSet() cannot be made to change what every object inherits", () => {
  parseSet("__proto__.polluted=yes,constructor.prototype.polluted=yes");
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
});
