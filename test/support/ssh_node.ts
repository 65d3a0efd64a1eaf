/**
 * A node to prepare: a real sshd on loopback whose sessions live in a root directory made by the test.
 *
 * Why a chroot in a mount namespace: the program under test uses its real paths (/etc, /boot, /sys, /proc)
 * and a real ssh client and server, and nothing of the machine can be changed: /usr is the machine's,
 * read-only, everything else is the test's. Needs root and openssh-server; `missing()` says what lacks.
 * Invariant: the mounts belong to sshd's own namespace and end with it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import type { RunScript } from "../../scripts/lib/ssh.ts";
import { wholeScript } from "../../scripts/lib/ssh.ts";
import { baseLinks, baseTree, crashable, type Distribution, fakeTools } from "./ssh_node_tree.ts";

export interface SshNode {
  readonly root: string;
  /** For --host. */
  readonly host: string;
  readonly port: number;
  readonly sshConfig: string;
  /** Scripts without ssh in between: for tests that run hundreds. */
  readonly direct: RunScript;
  /** The next scripts die (kill -9 of the whole session) at the n-th changing command; undefined: never. */
  crashAt(count: number | undefined): void;
  /**
   * The next scripts die in the n-th write to a file, with half of it done: the second half of what was to be written is
   * missing, also where the file was renamed to its place before anybody asked for its bytes to be on disk.
   */
  tearAt(count: number | undefined): void;
  read(file: string): string;
  write(file: string, text: string): void;
  /** Path, mode, owner and bytes, or a link's target, of all that a run may change. */
  tree(): Map<string, string>;
}

/** Why a real sshd cannot run here, or undefined. */
export function missing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root: a chroot and a mount namespace";
  if (!fs.existsSync("/usr/sbin/sshd")) return "needs openssh-server";
  try {
    execFileSync("unshare", ["--mount", "true"], { stdio: "ignore" });
  } catch {
    return "needs mount namespaces";
  }
  return undefined;
}

/** Starts a node; it ends with the test. */
export async function startSshNode(t: TestContext, kind: Distribution): Promise<SshNode> {
  const base = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-node-"));
  fs.chmodSync(base, 0o755);
  t.after(() => fs.rmSync(base, { recursive: true, force: true }));
  const root = path.join(base, "root");
  const port = await freePort();
  const files = { ...baseTree(kind), ...fakeTools() };
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(root, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text, { mode: name.startsWith("opt/fake/bin/") ? 0o755 : 0o644 });
  }
  for (const [name, target] of Object.entries(baseLinks(kind))) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.symlinkSync(target, path.join(root, name));
  }
  for (const name of crashable) {
    const file = path.join(root, "opt/fake/bin", name);
    const real = fs.existsSync(file) ? `/opt/fake/lib/${name}` : `/usr/bin/${name}`;
    if (fs.existsSync(file)) {
      fs.mkdirSync(path.join(root, "opt/fake/lib"), { recursive: true });
      fs.renameSync(file, path.join(root, "opt/fake/lib", name));
    }
    fs.writeFileSync(file, crashWrapper(name, real), { mode: 0o755 });
  }
  for (const dir of ["usr", "tmp", "run/sshd", "run/lock", "root", "var/lib", "dev/disk/by-id"]) {
    fs.mkdirSync(path.join(root, dir), { recursive: true });
  }
  for (const dir of ["bin", "sbin", "lib64"]) fs.symlinkSync(`usr/${dir}`, path.join(root, dir));
  // /lib is the test's own, for its modules; the loader's folder in it is the machine's.
  for (const dir of fs.readdirSync("/usr/lib").filter((name) => name.endsWith("-linux-gnu"))) {
    fs.symlinkSync(`../usr/lib/${dir}`, path.join(root, "lib", dir));
  }
  execFileSync("cp", ["-a", "/etc/alternatives", path.join(root, "etc")]);
  for (const name of DEVICES) fs.writeFileSync(path.join(root, "dev", name), "");
  fs.symlinkSync("../../sdb", path.join(root, "dev/disk/by-id/ata-EMPTY_1"));
  fs.truncateSync(path.join(root, "dev/sdb"), 64 << 20);
  fs.truncateSync(path.join(root, "dev/sdc"), 64 << 20);

  const folder = path.join(root, "etc/ssh");
  const sshConfig = writeSshFiles({
    ...{ base, folder, seenAs: "/etc/ssh", port },
    more: ["PermitRootLogin prohibit-password", `SetEnv PATH=${PATH}`],
  });
  await startSshd(t, root, port);
  return {
    root,
    host: `root@127.0.0.1:${port}`,
    port,
    sshConfig,
    direct: directRunner(root),
    crashAt: (count) => setLimit(root, "limit", count),
    tearAt(count) {
      setLimit(root, "tear", count);
      // Only now: it is run too often to be slowed down.
      const cat = path.join(root, "opt/fake/bin/cat");
      if (count === undefined) fs.rmSync(cat, { force: true });
      else fs.writeFileSync(cat, crashWrapper("cat", "/usr/bin/cat"), { mode: 0o755 });
    },
    read: (file) => fs.readFileSync(path.join(root, file), "utf8"),
    write: (file, text) => fs.writeFileSync(path.join(root, file), text),
    tree: () => treeOf(root),
  };
}

function setLimit(root: string, name: "limit" | "tear", count: number | undefined): void {
  fs.rmSync(path.join(root, "opt/fake/count"), { force: true });
  const limit = path.join(root, "opt/fake", name);
  if (count === undefined) fs.rmSync(limit, { force: true });
  else fs.writeFileSync(limit, `${count}\n`);
}

/** Counts, and at the limit ends the script, its children and itself, as a power cut would. */
function crashWrapper(name: string, real: string): string {
  const step = crashable.includes(name) ? "step" : ":";
  const after = real.startsWith("/opt/fake");
  return `#!/bin/sh
reached() {
  [ -f /opt/fake/$1 ] || return 1
  count=0
  if [ -f /opt/fake/count ]; then read -r count </opt/fake/count; fi
  count=$((count + 1))
  echo $count >/opt/fake/count
  read -r limit </opt/fake/$1
  [ $count -ge $limit ]
}
step() { if reached limit; then kill -9 0; fi; }
half() { echo $(($(/usr/bin/stat -c %s "$1") / 2)); }
${TEAR[name] ?? ""}
${step}
${after ? `${real} "$@"\ncode=$?\n${step}\nexit $code` : `exec ${real} "$@"`}
`;
}

/** Standard output is a file. */
const WRITES = `{ [ -f /opt/fake/tear ] && case $(/usr/bin/stat -c %F - <&5) in "regular "*) true ;; *) false ;; esac; } 5>&1`;
const tearOutput = (real: string): string => `if ${WRITES} && reached tear; then
  ${real} "$@" >/tmp/torn
  /usr/bin/head -c "$(half /tmp/torn)" /tmp/torn
  kill -9 0
fi`;
const LAST = 'for last in "$@"; do :; done';

/** How each command that writes files is cut off in its write. */
const TEAR: Readonly<Record<string, string>> = {
  cat: tearOutput("/usr/bin/cat"),
  base64: tearOutput("/usr/bin/base64"),
  cp: `if reached tear; then
  ${LAST}
  /usr/bin/cp "$@"
  /usr/bin/truncate -s "$(half "$last")" "$last"
  kill -9 0
fi`,
  // Its bytes are on disk only if a sync came after they were written.
  mv: `if [ -f /opt/fake/tear ]; then
  ${LAST}
  for file in "$@"; do
    case $file in -*) continue ;; esac
    if [ "$file" != "$last" ] && [ -f "$file" ] && [ -s "$file" ] &&
      { [ ! -e /opt/fake/synced ] || [ -n "$(/usr/bin/find "$file" -cnewer /opt/fake/synced)" ]; } && reached tear; then
      /usr/bin/mv "$@"
      /usr/bin/truncate -s "$(half "$last")" "$last"
      kill -9 0
    fi
  done
fi`,
};

const PATH = "/opt/fake/bin:/usr/local/bin:/usr/bin:/bin";

interface SshFiles {
  /** The client's files. */
  readonly base: string;
  /** The server's: sshd_config and what it names, and its path as the server sees it. */
  readonly folder: string;
  readonly seenAs: string;
  readonly port: number;
  /** Further lines of sshd_config. */
  readonly more: readonly string[];
}

/** Keys and configuration of an sshd on loopback and of its only client. @returns the client's configuration */
export function writeSshFiles({ base, folder, seenAs, port, more }: SshFiles): string {
  const key = path.join(base, "key");
  const hostKey = path.join(folder, "host_key");
  fs.mkdirSync(folder, { recursive: true });
  for (const file of [key, hostKey]) {
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file]);
  }
  fs.copyFileSync(`${key}.pub`, path.join(folder, "authorized_keys"));
  fs.writeFileSync(
    path.join(folder, "sshd_config"),
    [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${seenAs}/host_key`,
      `AuthorizedKeysFile ${seenAs}/authorized_keys`,
      "PasswordAuthentication no",
      "StrictModes no",
      "UsePAM no",
      "PidFile none",
      ...more,
      "",
    ].join("\n"),
  );
  const [type, data] = fs.readFileSync(`${hostKey}.pub`, "utf8").split(" ");
  const known = path.join(base, "known_hosts");
  fs.writeFileSync(known, `[127.0.0.1]:${port} ${type} ${data}\n`);
  const config = path.join(base, "ssh_config");
  fs.writeFileSync(
    config,
    // A Port in the file lets several nodes share one configuration: see mergeSshConfigs.
    `Match host 127.0.0.1 exec "test %p = ${port}"\n  IdentityFile ${key}\n  IdentitiesOnly yes\n  UserKnownHostsFile ${known}\n  StrictHostKeyChecking yes\n`,
  );
  return config;
}

/** One ssh configuration for several nodes. */
export function mergeSshConfigs(nodes: readonly SshNode[], file: string): string {
  fs.writeFileSync(file, nodes.map((node) => fs.readFileSync(node.sshConfig, "utf8")).join("\n"));
  return file;
}

/** The machine's own, mounted: the temporary folder may be a file system where made ones don't work. */
const DEVICES = ["null", "zero", "urandom"] as const;

const ENTER = `mount --bind /usr "$1/usr" && mount -o remount,ro,bind "$1/usr" &&
for device in ${DEVICES.join(" ")}; do mount --bind "/dev/$device" "$1/dev/$device" || exit; done &&
shift_root=$1 && shift && exec /usr/sbin/chroot "$shift_root" "$@"`;

const entering = (root: string, ...command: string[]): string[] => [
  "--mount",
  "sh",
  "-c",
  ENTER,
  "enter",
  root,
  ...command,
];

async function startSshd(t: TestContext, root: string, port: number): Promise<void> {
  const words = entering(root, "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config");
  const child = spawn("unshare", words, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.on("data", (data: Buffer) => {
    log += data.toString();
  });
  t.after(() => stop(child));
  const deadline = performance.now() + 20_000;
  while (!(await connects(port))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      throw new Error(`sshd did not start: ${log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}

export const connects = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });

export const freePort = () =>
  new Promise<number>((resolve, reject) => {
    const server = net.createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        typeof address === "object" && address
          ? resolve(address.port)
          : reject(new Error("no port")),
      );
    });
  });

/** The same shell in the same root, in a session of its own so that a crash ends only itself. */
function directRunner(root: string): RunScript {
  return (script, { onLine }) =>
    new Promise((resolve, reject) => {
      const child = spawn("unshare", entering(root, "/usr/bin/sh", "-s"), {
        detached: true,
        env: { PATH },
      });
      let out = "";
      let error = "";
      child.stdout.on("data", (data: Buffer) => {
        out += data.toString();
      });
      child.stderr.on("data", (data: Buffer) => {
        error += data.toString();
      });
      child.once("error", reject);
      child.once("close", (code) => {
        const lines = out.split("\n").filter(Boolean);
        for (const line of lines) onLine?.(line);
        resolve({ exitCode: code ?? 255, lines, errorTail: error.trim() });
      });
      child.stdin.on("error", () => {}); // a crashed script stops reading
      child.stdin.end(wholeScript(script));
    });
}

function treeOf(root: string): Map<string, string> {
  const tree = new Map<string, string>();
  const walk = (dir: string): void => {
    for (const name of fs.readdirSync(path.join(root, dir)).sort()) {
      const file = path.join(dir, name);
      const { mode, mtimeMs, uid, gid } = fs.lstatSync(path.join(root, file));
      const whose = `${uid}:${gid}`;
      if ((mode & 0o170000) === 0o120000) {
        tree.set(file, `link ${whose} ${fs.readlinkSync(path.join(root, file))}`);
      } else if ((mode & 0o170000) === 0o040000) {
        tree.set(file, `dir ${mode.toString(8)} ${whose}`);
        walk(file);
      } else if ((mode & 0o170000) === 0o100000) {
        // Kernel files have no date of their own.
        const date = file.startsWith("sys/") ? "" : ` ${mtimeMs}`;
        const bytes = fs.readFileSync(path.join(root, file), "latin1");
        tree.set(
          file,
          `${mode.toString(8)} ${whose}${date} ${file.startsWith("dev/") ? bytes.length : bytes}`,
        );
      }
    }
  };
  for (const dir of ["etc", "boot", "sys", "var", "dev"]) walk(dir);
  return tree;
}
