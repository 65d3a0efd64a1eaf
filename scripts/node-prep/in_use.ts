/**
 * Whether Mayastor still needs a node: asked before anything is taken back from it.
 *
 * Why: without its label the node's engine ends, and with it every target and replica there; closed ports cut them off.
 * Invariant: what cannot be seen is not taken for absent. Without kubectl only the node itself can be asked, and a running
 * engine counts as needed.
 */
import { errorMessage, isKind, SvcError } from "#common/errors.ts";
import type { Facts } from "./facts.ts";
import { type Kubectl, kubectlRun } from "./label.ts";
import { PORTS } from "./options.ts";

export const ENGINE = /\bio-engine\b|engine\/ts\/main/;
export const runsEngine = (facts: Facts): boolean => ENGINE.test(facts.ports.get(PORTS[0]) ?? "");

const REST_LABEL = "app=api-rest";
const REST_PORT = 8081;

/** The names that a list of `NAME NODE` lines has for the node. */
const namesOn = (lines: string, node: string): string[] =>
  lines.split("\n").flatMap((line) => {
    const [name = "", where] = line.trim().split(/\s+/);
    return where === node ? [name] : [];
  });

async function poolsOn(kubectl: NonNullable<Kubectl>, node: string): Promise<string[]> {
  const columns = "custom-columns=NAME:.metadata.name,NODE:.spec.node";
  const words = ["get", "diskpools.openebs.io", "-A", "--no-headers", "-o", columns];
  try {
    return namesOn(await kubectlRun(kubectl, words), node).map((name) => `DiskPool ${name}`);
  } catch (error) {
    // A cluster that knows no DiskPools has no pools.
    if (
      /doesn't have a resource type|could not find the requested resource/.test(errorMessage(error))
    )
      return [];
    throw error;
  }
}

/** @throws {SvcError} `unavailable` when the answer is no list: an error page is not "none" */
function targetsIn(answer: string, path: string): string[] {
  let found: unknown;
  try {
    found = JSON.parse(answer);
  } catch {
    // Said below, with every other answer that is no list.
  }
  if (!Array.isArray(found)) {
    throw new SvcError("unavailable", `Cannot read the volume targets: ${path} answered no list`);
  }
  return found.map((nexus: { uuid?: unknown }) => `volume target ${String(nexus.uuid)}`);
}

/** The volume targets on the node, from REST through the API server; none where no REST is installed. */
async function targetsOn(kubectl: NonNullable<Kubectl>, node: string): Promise<string[]> {
  const columns = "custom-columns=NS:.metadata.namespace,NAME:.metadata.name";
  const services = await kubectlRun(kubectl, [
    ...["get", "services", "-A", "-l", REST_LABEL, "--no-headers", "-o", columns],
  ]);
  const targets: string[] = [];
  for (const line of services.split("\n").filter((text) => text.trim() !== "")) {
    const [namespace = "", name = ""] = line.trim().split(/\s+/);
    const path = `/api/v1/namespaces/${namespace}/services/http:${name}:${REST_PORT}/proxy/v0/nodes/${node}/nexuses`;
    let answer: string;
    try {
      answer = await kubectlRun(kubectl, ["get", "--raw", path]);
    } catch (error) {
      if (isKind(error, "not-found")) continue; // REST knows no such node
      throw error;
    }
    targets.push(...targetsIn(answer, path));
  }
  return targets;
}

/** What keeps the node from being given back, in words; empty: nothing does. @throws {SvcError} `unavailable` */
export async function inUse(kubectl: Kubectl, node: string, facts: Facts): Promise<string[]> {
  if (!kubectl) {
    return runsEngine(facts)
      ? [
          `io-engine is running, and without --kubectl nobody can tell what it serves: delete its pools, then kubectl label node ${node} openebs.io/engine-`,
        ]
      : [];
  }
  return [...(await poolsOn(kubectl, node)), ...(await targetsOn(kubectl, node))];
}
