/**
 * Images with the names of the CSI project's sidecars, holding our stand-ins (folder sidecars): for test clusters that
 * cannot pull the real ones. Never to be pushed.
 * Invariant: one layer for the three: only the entry point differs.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { type BuiltImage, describeArchive, writeArchive } from "../../../hack/images/archive.ts";
import { cached, hashOf } from "../../../hack/images/cache.ts";
import { Rootfs } from "../../../hack/images/rootfs.ts";
import { makeInstall } from "../../../infra/config.ts";
import { csiImage } from "../../../infra/constructs/pod.ts";
import { bundle } from "../csi/programs.ts";

const NODE = "/usr/local/bin/node";
/** The registrar has 50 MiB and a tenth of a core. */
const SMALL_HEAP = ["--max-semi-space-size=1", "--max-old-space-size=24", "--single-threaded"];

interface Sidecar {
  readonly program: "provisioner" | "attacher" | "registrar";
  readonly reference: string;
  readonly flags: readonly string[];
}

function sidecars(): readonly Sidecar[] {
  const { values } = makeInstall({ version: "0.0.0" });
  const { provisionerTag, attacherTag, registrarTag } = values.csi.image;
  const of = (name: string, tag: string) => csiImage(values, name, tag);
  return [
    { program: "provisioner", reference: of("csi-provisioner", provisionerTag), flags: [] },
    { program: "attacher", reference: of("csi-attacher", attacherTag), flags: [] },
    {
      program: "registrar",
      reference: of("csi-node-driver-registrar", registrarTag),
      flags: SMALL_HEAP,
    },
  ];
}

/** Builds, or finds built, the three of them. */
export async function buildSidecarImages(): Promise<readonly BuiltImage[]> {
  const scratch = await mkdtemp(path.join(os.tmpdir(), "mayastor-sidecars-"));
  try {
    const all = sidecars();
    const bundles: Buffer[] = [];
    for (const { program } of all) {
      const file = path.join(scratch, `${program}.cjs`);
      await bundle(`test/support/kube_install/sidecars/${program}.ts`, file);
      bundles.push(await readFile(file));
    }
    const names = all.map(({ program, reference, flags }) => `${program} ${reference} ${flags}`);
    const hash = hashOf([process.version, process.arch, ...names, ...bundles]);
    const { folder } = await cached(hash, async (folder) => {
      const root = await Rootfs.create();
      try {
        await root.basics();
        await root.program(process.execPath, NODE);
        for (const { program } of all)
          await root.copy(path.join(scratch, `${program}.cjs`), `/sidecars/${program}.cjs`, 0o644);
        for (const { program, reference, flags } of all) {
          await writeArchive({
            name: `csi-${program}`,
            reference,
            rootfs: root.folder,
            config: { Entrypoint: [NODE, ...flags, `/sidecars/${program}.cjs`] },
            archive: path.join(folder, `${program}.tar`),
          });
        }
      } finally {
        await root.close();
      }
    });
    return await Promise.all(
      all.map(({ program, reference }) =>
        describeArchive({
          ...{ name: `csi-${program}`, reference },
          archive: path.join(folder, `${program}.tar`),
        }),
      ),
    );
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
