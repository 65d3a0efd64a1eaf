/**
 * Runs a program as if it were in a pod: the service account's token, CA and namespace where Kubernetes puts them, and
 * its two variables. So a program is tested as it is deployed, and under its own rights.
 *
 * How: a mount namespace of its own, in which `/run` is new.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

export type PodAccount = {
  /** Kept while the program runs: the token is copied from it at start. */
  readonly folder: string;
  readonly namespace: string;
  readonly token: string;
  readonly caPem: Buffer;
  /** Where the API server, or what stands before it, listens. */
  readonly host: string;
  readonly port: number;
};

const MOUNTED = "/run/secrets/kubernetes.io/serviceaccount";

/** The command and environment that run `argv` as in a pod with that account. */
export function inPod(
  { folder, namespace, token, caPem, host, port }: PodAccount,
  argv: readonly string[],
): { readonly command: readonly string[]; readonly env: Record<string, string> } {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "token"), token, { mode: 0o600 });
  writeFileSync(path.join(folder, "ca.crt"), caPem);
  writeFileSync(path.join(folder, "namespace"), namespace);
  const script = `mount -t tmpfs none /run && mkdir -p ${MOUNTED} && cp "$1"/* ${MOUNTED}/ && shift && exec "$@"`;
  const user = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  return {
    command: ["unshare", ...user, "--mount", "sh", "-c", script, "sh", folder, ...argv],
    env: { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: String(port) },
  };
}
