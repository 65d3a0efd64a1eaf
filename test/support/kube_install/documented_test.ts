import assert from "node:assert/strict";
import { test } from "node:test";
import { COLUMNS, readTable } from "./documented.ts";

const row = {
  NAME: "ms-volume-claim",
  STATUS: "Bound",
  VOLUME: "pvc-1",
  CAPACITY: "1Gi",
  "ACCESS MODES": "RWO",
  STORAGECLASS: "mayastor-1",
  AGE: "9s",
};

test("readTable() reads what kubectl prints, before and since Kubernetes 1.29", () => {
  const before = `\
NAME              STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   AGE
ms-volume-claim   Bound    pvc-1    1Gi        RWO            mayastor-1     9s
`;
  const since = `\
NAME              STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   VOLUMEATTRIBUTESCLASS   AGE
ms-volume-claim   Bound    pvc-1    1Gi        RWO            mayastor-1     <unset>                 9s
`;
  assert.deepEqual(readTable(before, COLUMNS.claims), [row]);
  assert.deepEqual(readTable(since, COLUMNS.claims), [row]);
  const pending = since.replace(
    "Bound    pvc-1    1Gi        RWO",
    "Pending                         ",
  );
  const [first] = readTable(pending, COLUMNS.claims);
  assert.deepEqual([first?.["STATUS"], first?.["VOLUME"], first?.["AGE"]], ["Pending", "", "9s"]);
});

test("readTable() refuses columns that are missing, unknown or in another order", () => {
  for (const head of [
    "NAME   READY",
    "NAME   READY   STATUS   RESTARTS   NODE   AGE",
    "READY   NAME",
  ])
    assert.throws(() => readTable(head, COLUMNS.pods), /Expected the columns NAME, READY/);
});
