/**
 * The manifests and table headers of the documentation's quickstart, word by word: what a reader types must work.
 * Names a reader has to fill in are parameters.
 */

export const NAMESPACE = "mayastor";

/** A DiskPool; `disk` may be any of the documented forms. */
export const diskPool = (name: string, node: string, disk: string): string => `\
apiVersion: "openebs.io/v1alpha1"
kind: DiskPool
metadata:
  name: ${name}
  namespace: mayastor
spec:
  node: ${node}
  disks: ["${disk}"]
`;

/** The StorageClasses mayastor-1 and mayastor-3. */
export const storageClass = (replicas: 1 | 3): string => `\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: mayastor-${replicas}
parameters:
  ioTimeout: "30"
  protocol: nvmf
  repl: "${replicas}"
provisioner: io.openebs.csi-mayastor
`;

export const CLAIM_NAME = "ms-volume-claim";

export const claim = (storageClassName: string, name = CLAIM_NAME, size = "1Gi"): string => `\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: ${name}
spec:
  accessModes:
  - ReadWriteOnce
  resources:
    requests:
      storage: ${size}
  storageClassName: ${storageClassName}
`;

export const FIO_POD = `\
kind: Pod
apiVersion: v1
metadata:
  name: fio
spec:
  nodeSelector:
    openebs.io/engine: mayastor
  volumes:
    - name: ms-volume
      persistentVolumeClaim:
        claimName: ms-volume-claim
  containers:
    - name: fio
      image: nixery.dev/shell/fio
      args:
        - sleep
        - "1000000"
      volumeMounts:
        - mountPath: "/volume"
          name: ms-volume
`;

/** What each command prints above its rows. */
export const COLUMNS = {
  pods: ["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
  diskPools: ["NAME", "NODE", "STATE", "POOL_STATUS", "CAPACITY", "USED", "AVAILABLE"],
  claims: ["NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "AGE"],
  persistentVolumes: [
    ...["NAME", "CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM"],
    ...["STORAGECLASS", "REASON", "AGE"],
  ],
  volumes: [
    ...["ID", "REPLICAS", "TARGET-NODE", "ACCESSIBILITY", "STATUS", "SIZE"],
    ...["THIN-PROVISIONED", "ALLOCATED"],
  ],
  pools: [
    ...["ID", "DISKS", "MANAGED", "NODE", "STATUS", "CAPACITY", "ALLOCATED", "AVAILABLE"],
    "COMMITTED",
  ],
  nodes: ["ID", "GRPC ENDPOINT", "STATUS", "CORDONED"],
} as const;

/** Columns that Kubernetes has added since; VOLUMEATTRIBUTESCLASS is there from 1.29 on. */
const ADDED: readonly string[] = ["VOLUMEATTRIBUTESCLASS"];

/**
 * Rows of a table whose columns are two spaces apart, by column; what newer versions add is left out.
 * @throws when the columns are others
 */
export function readTable(
  text: string,
  columns: readonly string[],
): readonly Readonly<Record<string, string>>[] {
  const [head = "", ...rows] = text.split("\n").filter((line) => line.trim() !== "");
  const found = [...head.matchAll(/\S+(?: \S+)*/g)].map((match, index, all) => ({
    name: match[0],
    from: index === 0 ? 0 : match.index,
    to: all[index + 1]?.index,
  }));
  const wanted = found.filter(({ name }) => columns.includes(name) || !ADDED.includes(name));
  if (wanted.map(({ name }) => name).join("\n") !== columns.join("\n"))
    throw new Error(`Expected the columns ${columns.join(", ")}, found: ${head.trim()}`);
  return rows.map((row) =>
    Object.fromEntries(wanted.map(({ name, from, to }) => [name, row.slice(from, to).trim()])),
  );
}
