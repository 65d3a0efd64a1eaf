/**
 * How to reach the API server: from inside a pod, or by a kubeconfig.
 *
 * Why: in a pod it takes four files and two variables, so no library is loaded there (an agent stays small and
 * starts at once); a kubeconfig can hold credential plugins and more, so there @kubernetes/client-node reads it.
 * Invariants: a service account's token is read again once a minute, because the kubelet rotates it; credentials
 * are never logged.
 * Source: Kubernetes documentation, "Accessing the API from a Pod".
 */
import { readFile } from "node:fs/promises";
import type { RequestOptions } from "node:https";
import path from "node:path";
import type { Clock } from "../clock.ts";
import { errorMessage, SvcError } from "../errors.ts";

const SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_MS_MAX = 60_000;

/** What a request needs to be let in. */
export type Credentials = Pick<
  RequestOptions,
  "ca" | "cert" | "key" | "rejectUnauthorized" | "servername" | "auth"
> & { readonly headers?: Readonly<Record<string, string>> };

export type Connection = {
  /** `https://host:port`, without a slash at the end. */
  readonly server: string;
  readonly credentials: () => Promise<Credentials>;
};

export type Environment = Readonly<Record<string, string | undefined>>;

async function readSecret(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new SvcError(
      "failed-precondition",
      `Cannot reach the API server: ${errorMessage(error)}; give the pod a service account token`,
      { cause: error },
    );
  }
}

/** The connection that Kubernetes gives to every pod with a service account token. */
export function podConnection(
  { host, port }: { host: string; port: string },
  { clock, folder = SERVICE_ACCOUNT_DIR }: { clock: Clock; folder?: string },
): Connection {
  let known: { readonly token: string; readonly ca: Buffer; readonly atMs: number } | null = null;
  const credentials = async (): Promise<Credentials> => {
    if (known === null || clock.monotonicMs() - known.atMs >= TOKEN_MS_MAX) {
      const ca = await readSecret(path.join(folder, "ca.crt"));
      const token = (await readSecret(path.join(folder, "token"))).toString("utf8").trim();
      known = { token, ca, atMs: clock.monotonicMs() };
    }
    return { ca: known.ca, headers: { authorization: `Bearer ${known.token}` } };
  };
  const name = host.includes(":") ? `[${host}]` : host;
  return { server: `https://${name}:${port}`, credentials };
}

async function kubeconfigConnection(): Promise<Connection> {
  const { KubeConfig } = await import("@kubernetes/client-node"); // heavy: only outside a pod
  const config = new KubeConfig();
  try {
    config.loadFromDefault();
  } catch (error) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read the kubeconfig: ${errorMessage(error)}; set KUBECONFIG to a valid one`,
      { cause: error },
    );
  }
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    throw new SvcError("invalid-argument", "Cannot read the kubeconfig: no current context");
  }
  const credentials = async (): Promise<Credentials> => {
    const options: RequestOptions = {};
    await config.applyToHTTPSOptions(options);
    const { ca, cert, key, rejectUnauthorized, servername, auth } = options;
    const entries = Object.entries({ ca, cert, key, rejectUnauthorized, servername, auth });
    const headers = Object.entries(options.headers ?? {}).map(([name, value]) => [
      name,
      String(value),
    ]);
    return {
      ...Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null)),
      headers: Object.fromEntries(headers) as Record<string, string>, // made of pairs of strings above
    };
  };
  return { server: cluster.server.replace(/\/+$/, ""), credentials };
}

/**
 * The API server of this pod, or of the kubeconfig when run outside one.
 * @throws {SvcError} `invalid-argument`
 */
export async function findConnection(env: Environment, clock: Clock): Promise<Connection> {
  const host = env["KUBERNETES_SERVICE_HOST"];
  if (host !== undefined && host !== "" && env["KUBECONFIG"] === undefined) {
    return podConnection({ host, port: env["KUBERNETES_SERVICE_PORT"] ?? "443" }, { clock });
  }
  return await kubeconfigConnection();
}
