/**
 * The programs of a real Kubernetes, built from Debian's source package with Debian's Go and kept in the user's cache.
 *
 * Why: no registry or download is needed, only the Debian mirror that this machine already uses.
 * Invariants: a folder in the cache is whole (built beside it, renamed into place); one builder at a time; the scratch
 * folder is gone afterwards; the machine's own package sources stay as they are.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { holdLock } from "./lock.ts";
import { run } from "./run.ts";

/** The only version of which Debian 12 has the source. */
export const KUBE_VERSION = "v1.20.2";
const CODENAME = "bookworm";
const SOURCE = "kubernetes_1.20.5+really1.20.2-*.dsc";
const PROGRAMS = [
  "kubectl",
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "kubelet",
  "kube-proxy",
] as const;
const STEP_MS = 60 * 60_000;
const REFLECT2 = "/usr/share/gocode/src/github.com/modern-go/reflect2";

export interface KubeBinaries {
  readonly version: string;
  readonly folder: string;
  readonly kubectl: string;
  readonly apiServer: string;
  readonly controllerManager: string;
  readonly scheduler: string;
  readonly kubelet: string;
  readonly proxy: string;
}

function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache");
  return path.join(base, "mayastor", "kube");
}

function binariesIn(folder: string): KubeBinaries {
  const at = (name: (typeof PROGRAMS)[number]) => path.join(folder, name);
  return {
    version: KUBE_VERSION,
    folder,
    kubectl: at("kubectl"),
    apiServer: at("kube-apiserver"),
    controllerManager: at("kube-controller-manager"),
    scheduler: at("kube-scheduler"),
    kubelet: at("kubelet"),
    proxy: at("kube-proxy"),
  };
}

/** Are the programs there, so that a start takes seconds instead of the build's minutes? */
export function haveKubeBinaries(): boolean {
  return existsSync(path.join(cacheFolder(), KUBE_VERSION));
}

/** The programs, built now if the cache does not have them (5 to 20 minutes of two cores). */
export async function ensureKubeBinaries(
  log: (line: string) => void = () => {},
): Promise<KubeBinaries> {
  const folder = path.join(cacheFolder(), KUBE_VERSION);
  if (existsSync(folder)) return binariesIn(folder);
  const release = await holdLock(path.join(cacheFolder(), "build.lock"), () =>
    log("another process builds Kubernetes: waiting for it"),
  );
  try {
    if (existsSync(folder)) return binariesIn(folder);
    for (const name of readdirSync(cacheFolder())) {
      if (name.startsWith(".build-")) rmScratch(path.join(cacheFolder(), name)); // of a killed builder
    }
    const scratch = path.join(cacheFolder(), `.build-${process.pid}`);
    try {
      await build(scratch, log);
      renameSync(path.join(scratch, "out"), folder);
    } finally {
      rmScratch(scratch);
    }
  } finally {
    await release();
  }
  return binariesIn(folder);
}

const rmScratch = (folder: string) => rmSync(folder, { recursive: true, force: true });

async function build(scratch: string, log: (line: string) => void): Promise<void> {
  const started = performance.now();
  const say = (line: string) =>
    log(`${line} (${Math.round((performance.now() - started) / 1000)} s so far)`);
  mkdirSync(path.join(scratch, "out"), { recursive: true });
  for (const need of ["/usr/bin/go", "/usr/bin/dpkg-source", REFLECT2]) {
    if (existsSync(need)) continue;
    const packages = "golang-go golang-github-modern-go-reflect2-dev dpkg-dev";
    throw new Error(
      `Cannot build Kubernetes ${KUBE_VERSION}: ${need} is missing; next: apt-get install --no-install-recommends ${packages}`,
    );
  }
  log(`building Kubernetes ${KUBE_VERSION} from Debian's source, once for this machine`);
  const source = await fetchSource(scratch);
  // The vendored reflect2 1.0.1 crashes with Go 1.18 and newer; Debian's is mended.
  const vendored = path.join(source, "vendor/github.com/modern-go/reflect2");
  for (const name of readdirSync(vendored)) {
    if (/\.(go|s)$/.test(name)) rmSync(path.join(vendored, name));
  }
  for (const name of readdirSync(REFLECT2)) {
    if (/\.(go|s)$/.test(name) && !name.endsWith("_test.go"))
      copyFileSync(path.join(REFLECT2, name), path.join(vendored, name));
  }
  const env = {
    ...{ GOPATH: path.join(scratch, "gopath"), GOCACHE: path.join(scratch, "gocache") },
    ...{ GOTMPDIR: scratch, GOFLAGS: "-p=2", GO111MODULE: "off", GOPROXY: "off" },
    ...{ GOSUMDB: "off", CGO_ENABLED: "0" },
  };
  say("source is there: generating the API description");
  await generateOpenApi(source, env, scratch);
  const packages = ["component-base/version", "client-go/pkg/version"].map(
    (name) => `k8s.io/kubernetes/vendor/k8s.io/${name}`,
  );
  const facts = {
    ...{ gitVersion: KUBE_VERSION, gitMajor: "1", gitMinor: "20", gitTreeState: "clean" },
    buildDate: "2021-01-13T00:00:00Z",
  };
  const set = packages.flatMap((name) =>
    Object.entries(facts).map(([key, value]) => `-X ${name}.${key}=${value}`),
  );
  for (const program of PROGRAMS) {
    say(`building ${program}`);
    const out = path.join(scratch, "out", program);
    const command = ["go", "build", "-ldflags", ["-s -w", ...set].join(" "), "-o", out];
    await run([...command, `./cmd/${program}`], { cwd: source, env, timeoutMs: STEP_MS });
  }
  say("built");
}

/** Debian's source, by a private package list that takes nothing but the mirror's address from the machine. */
async function fetchSource(scratch: string): Promise<string> {
  const format = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)|$(SIGNED_BY)";
  const targets = await run([
    ...["apt-get", "indextargets", "--format", format, "Created-By: Packages"],
  ]);
  const mirror = targets
    .split("\n")
    .map((line) => line.split("|"))
    .find(
      ([origin, codename, component]) =>
        origin === "Debian" && codename === CODENAME && component === "main",
    );
  const [, , , uri, signedBy] = mirror ?? [];
  if (uri === undefined) {
    throw new Error(
      `Cannot build Kubernetes ${KUBE_VERSION}: no Debian ${CODENAME} mirror is configured; next: run apt-get update on Debian 12`,
    );
  }
  const apt = path.join(scratch, "apt");
  for (const folder of ["lists/partial", "cache/archives/partial", "download"]) {
    mkdirSync(path.join(apt, folder), { recursive: true });
  }
  const key =
    signedBy === undefined || !signedBy.startsWith("/") // apt prints the pattern where none is set
      ? "/usr/share/keyrings/debian-archive-keyring.gpg"
      : signedBy;
  const list = path.join(apt, "sources.list");
  writeFileSync(list, `deb-src [signed-by=${key}] ${uri} ${CODENAME} main\n`);
  const options = [
    ...[`-oDir::State::Lists=${apt}/lists`, `-oDir::Cache=${apt}/cache`],
    ...[`-oDir::Etc::SourceList=${list}`, "-oDir::Etc::SourceParts=/dev/null"],
    "-oAPT::Sandbox::User=root", // the scratch folder is the builder's alone
  ];
  await run(["apt-get", ...options, "update"], { timeoutMs: STEP_MS });
  const download = path.join(apt, "download");
  const get = ["apt-get", ...options, "source", "--download-only", "kubernetes"];
  await run(get, { cwd: download, timeoutMs: STEP_MS });
  const wanted = new RegExp(`^${SOURCE.replace(/[.+]/g, "\\$&").replace("*", ".*")}$`);
  const description = readdirSync(download).find((name) => wanted.test(name));
  if (description === undefined)
    throw new Error(
      `Cannot build Kubernetes ${KUBE_VERSION}: the mirror has ${readdirSync(download).join(", ")}`,
    );
  await run(["dpkg-source", "-x", description, "source"], { cwd: download, timeoutMs: STEP_MS });
  // Built as Debian does: GOPATH mode, vendored packages, no network.
  const source = path.join(scratch, "gopath/src/k8s.io/kubernetes");
  mkdirSync(path.dirname(source), { recursive: true });
  renameSync(path.join(download, "source"), source);
  return source;
}

/** The one generated file that the source package leaves out. */
async function generateOpenApi(
  source: string,
  env: Readonly<Record<string, string>>,
  scratch: string,
): Promise<void> {
  const made = "pkg/generated/openapi";
  if (existsSync(path.join(source, made, "zz_generated.openapi.go"))) return;
  const generator = path.join(scratch, "openapi-gen");
  const options = { cwd: source, env, timeoutMs: STEP_MS };
  await run(
    ["go", "build", "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"],
    options,
  );
  const marked = await run(
    [
      ...["grep", "-rlE", "--include=*.go", "^// *\\+k8s:openapi-gen="],
      ...["pkg", "cmd", "plugin", "staging/src/k8s.io"],
    ],
    options,
  );
  const packages = new Set(
    marked
      .split("\n")
      .filter((file) => file !== "" && !/code-generator|sample-apiserver|_examples/.test(file))
      .map((file) => path.dirname(file))
      .map((folder) =>
        folder.startsWith("staging/src/")
          ? folder.replace("staging/src/", "k8s.io/kubernetes/vendor/")
          : `k8s.io/kubernetes/${folder}`,
      ),
  );
  await run(
    [
      ...[generator, "--logtostderr", "-i", [...packages].sort().join(",")],
      ...["-p", `k8s.io/kubernetes/${made}`, "-O", "zz_generated.openapi"],
      ...["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"],
      ...["-r", path.join(scratch, "openapi.report")],
    ],
    options,
  );
}
