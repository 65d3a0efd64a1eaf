/**
 * Stand-ins for the images that an installation uses beside ours, for test clusters without a registry.
 *
 * Why: the pause image, busybox, etcd and fio cannot be pulled there. These carry the names that the manifests ask for,
 * with the programs of this machine's Debian packages: for tests only, never to be pushed.
 * What differs from the real ones: etcd is Debian's (3.4), and `nc` in busybox is OpenBSD's (with dash as its shell),
 * since Debian's busybox has none with -z.
 * Usage: hack/images/thirdparty.ts   prints a table
 */
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { makeInstall } from "../../infra/config.ts";
import { PROBE_IMAGE } from "../../infra/value_types.ts";
import { type BuiltImage, describeArchive, type ImageConfig, writeArchive } from "./archive.ts";
import { cached, hashOf } from "./cache.ts";
import { Rootfs } from "./rootfs.ts";
import { imageTable } from "./table.ts";

/** The pause image that containerd and the kubelet are told to use. */
export const PAUSE_IMAGE = "registry.k8s.io/pause:3.10";
/** The image of the documentation's fio pod. */
export const FIO_IMAGE = "nixery.dev/shell/fio:latest";

const PACKAGES = [
  "busybox-static",
  "dash",
  "etcd-server",
  "etcd-client",
  "fio",
  "netcat-openbsd",
  "gcc",
];
const PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

interface Recipe {
  readonly name: string;
  readonly reference: string;
  readonly config: ImageConfig;
  readonly fill: (root: Rootfs) => Promise<void>;
}

function recipes(): readonly Recipe[] {
  const { values } = makeInstall({ version: "0.0.0" });
  return [
    {
      name: "pause",
      reference: PAUSE_IMAGE,
      config: { Entrypoint: ["/pause"], User: "65535:65535" },
      fill: async (root) => {
        const source = path.join(import.meta.dirname, "pause.c");
        await execa("gcc", [
          "-Os",
          "-Wall",
          "-Werror",
          "-static",
          "-s",
          "-o",
          root.at("pause"),
          source,
        ]);
      },
    },
    {
      name: "busybox",
      reference: PROBE_IMAGE,
      config: { Cmd: ["sh"], Env: [PATH_ENV] },
      fill: async (root) => {
        await root.basics();
        await root.shell();
        // busybox's own shell runs its own nc, whatever the PATH says.
        await rm(root.at("/bin/sh"));
        await root.program("/bin/dash", "/bin/sh");
        // Before /bin on the PATH, like every better program here.
        await root.program("/bin/nc.openbsd", "/usr/bin/nc");
      },
    },
    {
      name: "etcd",
      reference: values.etcd.image,
      config: { Cmd: ["etcd"], Env: [PATH_ENV] },
      fill: async (root) => {
        await root.basics();
        await root.shell();
        await root.program("/usr/bin/etcd");
        await root.program("/usr/bin/etcdctl");
      },
    },
    {
      name: "fio",
      reference: FIO_IMAGE,
      config: { Cmd: ["sh"], Env: [PATH_ENV] },
      fill: async (root) => {
        await root.basics();
        await root.shell();
        await root.program("/usr/bin/fio");
      },
    },
  ];
}

/** @throws when a Debian package is missing, naming all that are */
async function packageVersions(): Promise<string> {
  const { stdout } = await execa("dpkg-query", ["--show", ...PACKAGES], { reject: false });
  const lines = stdout.split("\n").map((line) => line.split("\t"));
  const missing = PACKAGES.filter(
    (name) => !lines.some(([found, version = ""]) => found === name && version !== ""),
  );
  if (missing.length > 0) {
    throw new Error(
      `Cannot build the test images: ${missing.join(", ")} not installed; apt-get install --no-install-recommends ${missing.join(" ")}`,
    );
  }
  return stdout;
}

async function ownSources(): Promise<string[]> {
  const names = ["archive.ts", "pause.c", "rootfs.ts", "thirdparty.ts"];
  return Promise.all(names.map((name) => readFile(path.join(import.meta.dirname, name), "utf8")));
}

/** Builds, or finds built, all of them. Seconds the first time. */
export async function buildClusterImages(
  options: { readonly only?: readonly string[]; readonly log?: (line: string) => void } = {},
): Promise<readonly BuiltImage[]> {
  const all = recipes();
  const { only = all.map(({ name }) => name), log = () => {} } = options;
  const unknown = only.filter((name) => !all.some((recipe) => recipe.name === name));
  if (unknown.length > 0) {
    throw new Error(
      `Cannot build ${unknown.join(", ")}: there are ${all.map(({ name }) => name).join(", ")}`,
    );
  }
  const inputs = [...(await ownSources()), await packageVersions(), process.arch];
  const images: BuiltImage[] = [];
  for (const { name, reference, config, fill } of all.filter((recipe) =>
    only.includes(recipe.name),
  )) {
    const hash = hashOf([...inputs, name, reference]);
    const { folder, found } = await cached(hash, async (folder) => {
      const root = await Rootfs.create();
      try {
        await fill(root);
        await writeArchive({
          name,
          reference,
          config,
          rootfs: root.folder,
          archive: path.join(folder, `${name}.tar`),
        });
      } finally {
        await root.close();
      }
    });
    log(`${reference}: ${found ? "found" : "built"}`);
    images.push(
      await describeArchive({ name, reference, archive: path.join(folder, `${name}.tar`) }),
    );
  }
  return images;
}

if (import.meta.main) {
  console.log(imageTable(await buildClusterImages({ log: (line) => console.error(line) })));
}
