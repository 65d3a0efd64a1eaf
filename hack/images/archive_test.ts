import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { execa } from "execa";
import { sha256OfFile, writeArchive, writeMergedArchive } from "./archive.ts";
import { unpackArchive } from "./unpack.ts";

let folder = "";
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "mayastor-archive-"));
});
after(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function makeRoot(name: string): Promise<string> {
  const root = path.join(folder, name);
  await mkdir(path.join(root, "bin"), { recursive: true });
  await writeFile(path.join(root, "bin/tool"), "#!/bin/sh\n");
  await chmod(path.join(root, "bin/tool"), 0o755);
  await symlink("tool", path.join(root, "bin/other"));
  await writeFile(
    path.join(root, `${"long".repeat(40)}.txt`),
    "a name that tar needs more room for",
  );
  return root;
}

test("writeArchive gives the same bytes for the same folder, whenever it was made", async () => {
  const config = { Entrypoint: ["/bin/tool"], User: "1:1" };
  const sums: string[] = [];
  for (const name of ["first", "second"]) {
    const rootfs = await makeRoot(name);
    const day = new Date(name === "first" ? "2001-01-01" : "2002-02-02");
    await utimes(path.join(rootfs, "bin/tool"), day, day);
    const archive = path.join(folder, `${name}.tar`);
    const image = await writeArchive({ name, reference: "tool:1", rootfs, config, archive });
    assert.ok(image.bytes > 0);
    sums.push(await sha256OfFile(archive));
  }
  assert.equal(sums[0], sums[1]);
});

test("writeArchive keeps modes, links and configuration", async () => {
  const rootfs = await makeRoot("kept");
  const archive = path.join(folder, "kept.tar");
  const config = { Entrypoint: ["/bin/tool"], Env: ["A=b"], User: "7:7" };
  await writeArchive({ name: "tool", reference: "example/tool:1", rootfs, config, archive });
  const [image] = await unpackArchive(archive, path.join(folder, "unpacked"));
  assert.ok(image);
  assert.equal(image.reference, "example/tool:1");
  assert.deepEqual(image.config.config, config);
  const { stdout } = await execa("find", ["bin", "-printf", "%p %M %l\n"], { cwd: image.rootfs });
  assert.deepEqual(stdout.split("\n").sort(), [
    "bin drwxr-xr-x ",
    "bin/other lrwxrwxrwx tool",
    "bin/tool -rwxr-xr-x ",
  ]);
});

/** An OCI layout of two images of which the first layer is shared. */
async function makeLayout(): Promise<string> {
  const layout = path.join(folder, "layout");
  const blobs = path.join(layout, "blobs/sha256");
  await mkdir(blobs, { recursive: true });
  const put = async (file: string) => {
    const sum = await sha256OfFile(file);
    await execa("cp", [file, path.join(blobs, sum)]);
    return { digest: `sha256:${sum}` };
  };
  const layer = async (name: string) => {
    const tar = path.join(folder, `${name}.layer`);
    await writeFile(path.join(folder, name), name);
    await execa("tar", ["-C", folder, "-cf", tar, name]);
    return put(tar);
  };
  const json = async (name: string, value: unknown) => {
    await writeFile(path.join(folder, name), JSON.stringify(value));
    return put(path.join(folder, name));
  };
  const shared = await layer("shared");
  const manifests: unknown[] = [];
  for (const name of ["a", "b"]) {
    const config = await json(`${name}.json`, {
      architecture: "amd64",
      os: "linux",
      config: { User: name },
    });
    const layers = [shared, await layer(name)];
    const manifest = await json(`${name}.manifest`, { config, layers });
    manifests.push({ ...manifest, annotations: { "org.opencontainers.image.ref.name": name } });
  }
  await writeFile(path.join(layout, "index.json"), JSON.stringify({ manifests }));
  return layout;
}

test("writeMergedArchive holds every image, and a shared layer once", async () => {
  const layout = await makeLayout();
  const archive = path.join(folder, "merged.tar");
  const images = ["a", "b"].map((name) => ({ name, reference: `example/${name}:1` }));
  await writeMergedArchive({ layout, images, archive });
  const { stdout } = await execa("tar", ["-tf", archive]);
  assert.equal(stdout.split("\n").filter((name) => name.endsWith(".tar")).length, 3);
  const unpacked = await unpackArchive(archive, path.join(folder, "merged"));
  for (const [index, name] of ["a", "b"].entries()) {
    const image = unpacked[index];
    assert.ok(image);
    assert.equal(image.reference, `example/${name}:1`);
    assert.equal(image.config.config.User, name);
    assert.equal(await readFile(path.join(image.rootfs, "shared"), "utf8"), "shared");
    assert.equal(await readFile(path.join(image.rootfs, name), "utf8"), name);
  }
});

test("writeMergedArchive names the image that is not in the layout", async () => {
  const layout = path.join(folder, "empty");
  await mkdir(layout);
  await writeFile(path.join(layout, "index.json"), '{"manifests":[]}');
  await assert.rejects(
    writeMergedArchive({
      layout,
      images: [{ name: "c", reference: "c:1" }],
      archive: path.join(folder, "none.tar"),
    }),
    /Cannot export c: it is not in/,
  );
});
