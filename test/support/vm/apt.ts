/**
 * Debian packages to look into, never to install: those of the suite that this machine runs, and those of another
 * suite, from the mirror that this machine's apt uses already.
 * Invariants: nothing is installed and no file of the machine's apt changes, except that its lists are fetched where it
 * has none; another suite's lists are in a folder of their own.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

const OPTIONS = ["-qq", "-o", "Acquire::Retries=3"];

export function sh(command: string, args: readonly string[], cwd?: string): string {
  return execFileSync(command, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 26,
  });
}

export interface Suite {
  readonly name: string;
  /** What apt-get and apt-cache need to see this suite. */
  readonly options: readonly string[];
}

interface Index {
  readonly suite: string;
  readonly codename: string;
  readonly uri: string;
}

/** Debian's own indexes of packages among the lines that apt-get printed; no security or backports ones. */
export function debianIndexes(lines: string): Index[] {
  return lines.split("\n").flatMap((line) => {
    const [label, suite = "", codename = "", component, kind, uri = ""] = line.split("|");
    return label === "Debian" && component === "main" && kind === "Packages"
      ? [{ suite, codename, uri }]
      : [];
  });
}

const FORMAT = "$(LABEL)|$(SUITE)|$(CODENAME)|$(COMPONENT)|$(CREATED_BY)|$(REPO_URI)";

function configuredIndexes(): Index[] {
  const look = () => debianIndexes(sh("apt-get", ["indextargets", "--format", FORMAT]));
  const found = look();
  if (found.length > 0) return found;
  sh("apt-get", [...OPTIONS, "update"]); // a fresh machine has no lists, and without them apt knows no labels
  return look();
}

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** A suite by its code name: as the machine has it, or else with lists in `folder`. */
export function openSuite(name: string, folder: string): Suite {
  const indexes = configuredIndexes();
  if (indexes.some(({ suite, codename }) => suite === name || codename === name))
    return { name, options: [] };
  const mirror = indexes[0]?.uri;
  if (mirror === undefined)
    throw new Error(
      `Cannot look into Debian's ${name}: apt's sources on this machine name no mirror of Debian; next: add one to /etc/apt/sources.list.d`,
    );
  const sources = path.join(folder, "sources.list");
  for (const part of ["lists/partial", "cache/archives/partial"])
    mkdirSync(path.join(folder, part), { recursive: true });
  writeFileSync(sources, `deb [signed-by=${KEYRING}] ${mirror} ${name} main\n`);
  const set = {
    "Dir::State::Lists": path.join(folder, "lists"),
    "Dir::State::Status": "/dev/null",
    "Dir::Cache": path.join(folder, "cache"),
    "Dir::Etc::SourceList": sources,
    "Dir::Etc::SourceParts": "/dev/null",
    "Acquire::Languages": "none",
    "APT::Sandbox::User": "root", // the folder is the user's own
    "APT::Update::Post-Invoke-Success::": "",
    "APT::Update::Post-Invoke::": "",
  };
  return {
    name,
    options: Object.entries(set).flatMap(([key, value]) => ["-o", `${key}=${value}`]),
  };
}

export function update({ options }: Suite): void {
  sh("apt-get", [...OPTIONS, ...options, "update"]);
}

/** What a package depends on; nothing where the lists have no such package. */
export function dependencies({ options }: Suite, name: string): string[] {
  try {
    const text = sh("apt-cache", [...options, "depends", name]);
    return [...text.matchAll(/^ *Depends: (\S+)/gm)].map(([, dependency = ""]) => dependency);
  } catch {
    return []; // apt-cache knows no such package: the same as none found
  }
}

/** Downloads a package into `folder` and unpacks it to `tree`. */
export function unpackPackage(suite: Suite, name: string, folder: string, tree: string): void {
  const into = path.join(folder, `${name}.deb`);
  mkdirSync(into);
  chmodSync(into, 0o777); // apt downloads as its own user
  const download = [...OPTIONS, ...suite.options, "download", name];
  try {
    sh("apt-get", download, into);
  } catch {
    update(suite); // lists of an older mirror name what is no longer there
    sh("apt-get", download, into);
  }
  const deb = readdirSync(into).find((file) => file.endsWith(".deb"));
  if (!deb) throw new Error(`apt-get download ${name} gave no package`);
  mkdirSync(tree, { recursive: true });
  // Over what is there: packages of one kernel share folders, some through links such as /lib.
  const tar = "tar -x --keep-directory-symlink -C";
  sh("bash", [
    "-c",
    `set -o pipefail; dpkg-deb --fsys-tarfile "$1" | ${tar} "$2"`,
    "-",
    path.join(into, deb),
    tree,
  ]);
  rmSync(into, { recursive: true });
}
