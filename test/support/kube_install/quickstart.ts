/**
 * Step: StorageClass, claim and fio pod of the documentation, and what the documented commands print of them.
 * Nodes here have no NVMe initiator, so the pod cannot start: its events have to say what is missing, and what to do.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { until } from "../../../hack/cluster/local.ts";
import { CLAIM_NAME, COLUMNS, claim, FIO_POD, readTable, storageClass } from "./documented.ts";
import type { Installation } from "./installation.ts";

const GIB = "1Gi";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

interface Claim {
  readonly metadata: { readonly uid: string };
}

/** Waits until a claim is Bound; its volume's uuid. */
export async function untilBound(installation: Installation, name: string): Promise<string> {
  const show = () => installation.kubectl(["get", "pvc", name]);
  await until(
    `claim ${name} Bound`,
    async () => readTable(await show(), COLUMNS.claims)[0]?.["STATUS"] === "Bound",
    { seconds: 90, everyMs: 500 },
  ).catch(async (error: unknown) => {
    const events = await installation.kubectl(["describe", "pvc", name]);
    throw new Error(`${String(error)}\n${events}\n${await installation.explain()}`);
  });
  const { metadata } = await installation.json<Claim>(["get", "pvc", name]);
  return metadata.uid;
}

export async function quickstart(t: TestContext, installation: Installation): Promise<void> {
  for (const replicas of [1, 3] as const)
    await installation.kubectl(["create", "-f", "-"], storageClass(replicas));
  await installation.kubectl(["create", "-f", "-"], claim("mayastor-1"));
  const uuid = await untilBound(installation, CLAIM_NAME);
  assert.match(uuid, UUID);

  const [bound] = readTable(await installation.kubectl(["get", "pvc", CLAIM_NAME]), COLUMNS.claims);
  const { AGE: _, ...claimRow } = bound ?? {};
  assert.deepEqual(claimRow, {
    NAME: CLAIM_NAME,
    STATUS: "Bound",
    VOLUME: `pvc-${uuid}`,
    CAPACITY: GIB,
    "ACCESS MODES": "RWO",
    STORAGECLASS: "mayastor-1",
  });
  const [volume] = readTable(
    await installation.kubectl(["get", "pv", `pvc-${uuid}`]),
    COLUMNS.persistentVolumes,
  );
  const { AGE: __, ...volumeRow } = volume ?? {};
  assert.deepEqual(volumeRow, {
    NAME: `pvc-${uuid}`,
    CAPACITY: GIB,
    "ACCESS MODES": "RWO",
    "RECLAIM POLICY": "Delete",
    STATUS: "Bound",
    CLAIM: `default/${CLAIM_NAME}`,
    STORAGECLASS: "mayastor-1",
    REASON: "",
  });

  await installation.kubectl(["apply", "-f", "-"], FIO_POD);
  const node = await until(
    "the fio pod on a node",
    async () =>
      (await installation.json<{ spec: { nodeName?: string } }>(["get", "pod", "fio"])).spec
        .nodeName,
    { seconds: 60, everyMs: 500 },
  );
  await checkAttached(installation, uuid, node);
  await checkError(t, installation);
}

/** The attacher has published the volume to the pod's node, and the plugin shows it as documented. */
async function checkAttached(
  installation: Installation,
  uuid: string,
  node: string,
): Promise<void> {
  await until(
    "the volume attached",
    async () => {
      const { items } = await installation.json<{
        items: { spec: { nodeName: string }; status: { attached: boolean } }[];
      }>(["get", "volumeattachments"]);
      return items.some(({ spec, status }) => spec.nodeName === node && status.attached);
    },
    { seconds: 60, everyMs: 500 },
  );
  const volumes = readTable(await installation.plugin("get", "volumes"), COLUMNS.volumes);
  assert.deepEqual(volumes, [
    {
      ID: uuid,
      REPLICAS: "1",
      "TARGET-NODE": node,
      ACCESSIBILITY: "nvmf",
      STATUS: "Online",
      SIZE: "1GiB",
      "THIN-PROVISIONED": "false",
      ALLOCATED: "1GiB",
    },
  ]);
}

/** What the user sees who forgot to load nvme-tcp. */
async function checkError(t: TestContext, installation: Installation): Promise<void> {
  interface Events {
    readonly items: readonly { readonly reason: string; readonly message: string }[];
  }
  const field = "--field-selector=involvedObject.name=fio";
  const event = await until(
    "the fio pod's event about its volume",
    async () =>
      (await installation.json<Events>(["get", "events", field])).items.find(
        ({ reason, message }) => reason === "FailedMount" && message.includes("MountDevice"),
      ),
    { seconds: 120, everyMs: 1000 },
  );
  t.diagnostic(event.message);
  assert.match(event.message, /nvme-tcp|nvme_tcp/, "names the kernel module that is missing");
  assert.match(event.message, /modprobe|load/, "says what to do");
  const [pod] = readTable(await installation.kubectl(["get", "pod", "fio"]), COLUMNS.pods);
  assert.equal(pod?.["STATUS"], "ContainerCreating");
}

/** What the quickstart made, removed as a user would: the volume goes with its claim. */
export async function removeQuickstart(installation: Installation): Promise<void> {
  await installation.kubectl(["delete", "pod", "fio"]);
  await installation.kubectl(["delete", "pvc", CLAIM_NAME]);
  await installation.untilGone("persistent volumes of the driver", [
    ...["get", "pv", "-l", "!statefulset.kubernetes.io/pod-name"],
  ]);
  for (const replicas of [1, 3])
    await installation.kubectl(["delete", "storageclass", `mayastor-${replicas}`]);
  const { entries } = await installation.rest<{ entries: unknown[] }>(
    "GET",
    "/volumes?max_entries=0",
  );
  assert.deepEqual(entries, []);
}
