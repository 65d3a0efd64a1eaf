/**
 * The part of a kubeconfig that says how to reach the API server: the current context only.
 *
 * Why our own: the plugin makes two requests to the API server; a client library would cost ten times its start-up.
 * Invariants: file references are relative to the kubeconfig's folder; credentials stay in memory; what is not
 * supported says so, it is never skipped in silence.
 * Source: Kubernetes documentation, "kubeconfig (v1)" and "client authentication (v1)".
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { type Static, type TSchema, Type } from "typebox";
import Value from "typebox/value";
import { errorMessage } from "#common/errors.ts";
import type { Endpoint } from "./rest_client.ts";
import { parse as parseYaml } from "./yaml.ts";

const text = Type.Optional(Type.String());
const Cluster = Type.Object({
  server: Type.String(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": Type.Optional(Type.Boolean()),
  "tls-server-name": text,
  "proxy-url": text,
});
const Exec = Type.Object({
  command: Type.String(),
  args: Type.Optional(Type.Union([Type.Array(Type.String()), Type.Null()])),
  env: Type.Optional(
    Type.Union([
      Type.Array(Type.Object({ name: Type.String(), value: Type.String() })),
      Type.Null(),
    ]),
  ),
});
const User = Type.Object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  password: text,
  exec: Type.Optional(Exec),
  "auth-provider": Type.Optional(Type.Unknown()),
});
const Kubeconfig = Type.Object({
  "current-context": text,
  contexts: Type.Array(
    Type.Object({
      name: Type.String(),
      context: Type.Object({ cluster: Type.String(), user: text }),
    }),
  ),
  clusters: Type.Array(Type.Object({ name: Type.String(), cluster: Cluster })),
  users: Type.Optional(Type.Array(Type.Object({ name: Type.String(), user: User }))),
});
const ExecCredential = Type.Object({
  status: Type.Object({
    token: text,
    clientCertificateData: text,
    clientKeyData: text,
  }),
});

function read<Schema extends TSchema>(
  schema: Schema,
  value: unknown,
  what: string,
): Static<Schema> {
  if (Value.Check(schema, value)) return value;
  const [first] = Value.Errors(schema, value);
  throw new Error(
    `${what}: ${first ? `${first.instancePath || "/"} ${first.message}` : "invalid"}`,
  );
}

/** `-k`, else the first file of KUBECONFIG, else the default place. @throws when there is no home either */
export function kubeconfigPath(
  given: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string {
  if (given !== undefined) return given;
  const [listed] = (env["KUBECONFIG"] ?? "").split(":").filter((path) => path !== "");
  if (listed !== undefined) return listed;
  const home = env["HOME"] ?? env["USERPROFILE"];
  if (!home) throw new Error("kubeconfig file not found in default location: no home directory");
  return join(home, ".kube", "config");
}

function loadText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`kubeconfig file not found at ${path}: ${errorMessage(error)}`);
  }
}

/** Runs a credential plugin (exec) and takes the credential it prints. */
async function runExec(exec: Static<typeof Exec>, env: NodeJS.ProcessEnv) {
  const info = {
    apiVersion: "client.authentication.k8s.io/v1",
    kind: "ExecCredential",
    spec: { interactive: false },
  };
  const extra = Object.fromEntries((exec.env ?? []).map(({ name, value }) => [name, value]));
  let stdout: string;
  try {
    ({ stdout } = await promisify(execFile)(exec.command, exec.args ?? [], {
      env: { ...env, KUBERNETES_EXEC_INFO: JSON.stringify(info), ...extra },
    }));
  } catch (error) {
    throw new Error(`credential plugin ${exec.command} failed: ${errorMessage(error)}`);
  }
  return read(ExecCredential, JSON.parse(stdout), `answer of ${exec.command}`).status;
}

/** The API server of the current context, ready to be called. @throws saying what is missing */
export async function loadEndpoint(path: string, env: NodeJS.ProcessEnv): Promise<Endpoint> {
  const config = read(Kubeconfig, parseYaml(loadText(path)), `kubeconfig ${path}`);
  const wanted = config["current-context"];
  const context = config.contexts.find(({ name }) => name === wanted)?.context;
  if (!context) throw new Error(`kubeconfig ${path}: no current context "${wanted ?? ""}"`);
  const cluster = config.clusters.find(({ name }) => name === context.cluster)?.cluster;
  if (!cluster) throw new Error(`kubeconfig ${path}: no cluster "${context.cluster}"`);
  const user = config.users?.find(({ name }) => name === context.user)?.user ?? {};
  if (cluster["proxy-url"]) throw new Error(`kubeconfig ${path}: proxy-url is not supported`);
  if (user["auth-provider"] !== undefined) {
    throw new Error(
      `kubeconfig ${path}: auth-provider is not supported; use an exec plugin or a token`,
    );
  }

  const place = (file: string) => (isAbsolute(file) ? file : join(dirname(path), file));
  /** Inline base64 wins over a file, as with kubectl. */
  const bytes = (data: string | undefined, file: string | undefined): Buffer | undefined => {
    if (data) return Buffer.from(data, "base64");
    return file ? readFileSync(place(file)) : undefined;
  };
  const exec = user.exec ? await runExec(user.exec, env) : {};
  const ca = bytes(cluster["certificate-authority-data"], cluster["certificate-authority"]);
  const cert =
    exec.clientCertificateData ??
    bytes(user["client-certificate-data"], user["client-certificate"]);
  const key = exec.clientKeyData ?? bytes(user["client-key-data"], user["client-key"]);
  const token =
    exec.token ??
    user.token ??
    (user.tokenFile ? readFileSync(place(user.tokenFile), "utf8").trim() : undefined);
  const basic =
    user.username === undefined
      ? undefined
      : `Basic ${Buffer.from(`${user.username}:${user.password ?? ""}`).toString("base64")}`;
  const authorization = token === undefined ? basic : `Bearer ${token}`;
  return {
    baseUrl: cluster.server.replace(/\/+$/, ""),
    tls: {
      ...(ca ? { ca } : {}),
      ...(cert ? { cert } : {}),
      ...(key ? { key } : {}),
      ...(cluster["insecure-skip-tls-verify"] ? { rejectUnauthorized: false } : {}),
      ...(cluster["tls-server-name"] ? { servername: cluster["tls-server-name"] } : {}),
    },
    headers: authorization === undefined ? {} : { authorization },
  };
}
