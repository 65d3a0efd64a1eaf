/**
 * A real Kubernetes cluster for developers, kept until it is taken down.
 * Usage: main.ts up [--nodes=3] [--images=a.tar,b.tar] | down | kubectl ARGUMENTS...
 *        main.ts build   (only builds the Kubernetes programs into the cache)
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { execaSync } from "execa";
import { commandLine, EXIT_USAGE } from "#common/command_line.ts";
import { buildClusterImages } from "../../images/thirdparty.ts";
import { ensureKubeBinaries } from "./binaries.ts";
import { KubeCluster } from "./cluster.ts";
import { clear, clearStale, stateFolders } from "./state.ts";

const log = (line: string) => console.error(line);
const USAGE = `Usage: main.ts up [--nodes=3] [--images=TAR,...] | down | kubectl ARGUMENTS... | build
  up       starts a cluster that stays; prints how to reach it
  down     ends it
  kubectl  talks to it
  build    only builds the Kubernetes programs into the cache`;
const [command, ...rest] = process.argv.slice(2);

async function up(args: string[]): Promise<void> {
  const options = { nodes: { type: "string" }, images: { type: "string" } } as const;
  const { values } = commandLine({ usage: USAGE, args, options });
  const given = values.images === undefined ? [] : values.images.split(",");
  const built = await buildClusterImages();
  const images = [...built.map((image) => image.archive), ...given];
  const nodes = Number(values.nodes ?? "3");
  const cluster = await KubeCluster.start({ nodes, images, log, kept: true });
  console.log(`export KUBECONFIG=${cluster.controlPlane.kubeconfig}`);
}

/** The folder of the cluster that `up` made. */
function kept(): string {
  const found = stateFolders().find((folder) => {
    const file = path.join(folder, "owner.json");
    return existsSync(file) && readFileSync(file, "utf8").includes('"kept":true');
  });
  if (found === undefined)
    throw new Error("Cannot find a cluster: none is up; next: hack/cluster/kube/main.ts up");
  return found;
}

async function kubectl(args: readonly string[]): Promise<void> {
  const { kubectl: program } = await ensureKubeBinaries(log);
  const config = path.join(kept(), "admin.kubeconfig");
  const { exitCode } = execaSync(program, ["--kubeconfig", config, ...args], {
    reject: false,
    stdio: "inherit",
  });
  process.exitCode = exitCode ?? 1;
}

switch (command) {
  case "up":
    await up(rest);
    break;
  case "down":
    commandLine({ usage: USAGE, args: rest });
    await clearStale();
    await clear(kept());
    break;
  case "kubectl":
    await kubectl(rest);
    break;
  case "build":
    commandLine({ usage: USAGE, args: rest });
    console.log((await ensureKubeBinaries(log)).folder);
    break;
  case "--help":
  case "-h":
    console.log(USAGE);
    break;
  default:
    if (command !== undefined) console.error(`Cannot start: there is no command "${command}"`);
    console.error(USAGE);
    process.exitCode = EXIT_USAGE;
}
