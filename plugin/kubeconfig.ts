/**
 * The part of a kubeconfig that says how to reach the API server: the current context only.
 *
 * Why our own: the plugin makes two requests to the API server; a client library would cost ten times its start-up.
 * Invariants: several files are merged as kubectl does (the first that has a name, or a current context, wins); file
 * references are relative to the folder of the kubeconfig that has them; credentials stay in memory; what is not
 * supported says so, it is never skipped in silence.
 * Source: Kubernetes documentation, "kubeconfig (v1)" and "Organizing Cluster Access Using kubeconfig Files".
 */
import { readFileSync } from "node:fs";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { type Static, type TSchema, Type } from "typebox";
import Value from "typebox/value";
import { errorMessage } from "#common/errors.ts";
import { ExecSchema, type PluginContext, runCredentialPlugin } from "./credential_plugin.ts";
import type { Endpoint } from "./rest_client.ts";
import { parse as parseYaml } from "./yaml.ts";

const text = Type.Optional(Type.String());
/** kubectl writes null where a list is empty. */
const list = <Item extends TSchema>(item: Item) =>
  Type.Optional(Type.Union([Type.Array(item), Type.Null()]));
const Cluster = Type.Object({
  server: Type.String(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": Type.Optional(Type.Boolean()),
  "tls-server-name": text,
  "proxy-url": text,
  extensions: list(Type.Object({ name: Type.String(), extension: Type.Unknown() })),
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
  exec: Type.Optional(Type.Union([ExecSchema, Type.Null()])),
  "auth-provider": Type.Optional(Type.Unknown()),
});
const Kubeconfig = Type.Object({
  "current-context": text,
  contexts: list(
    Type.Object({
      name: Type.String(),
      context: Type.Object({ cluster: Type.String(), user: text }),
    }),
  ),
  clusters: list(Type.Object({ name: Type.String(), cluster: Cluster })),
  users: list(Type.Object({ name: Type.String(), user: User })),
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

/** `-k`, else the files of KUBECONFIG, else the default place. @throws when there is no home either */
export function kubeconfigPaths(
  given: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): readonly [string, ...string[]] {
  if (given !== undefined) return [given];
  const [first, ...more] = (env["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  if (first !== undefined) return [first, ...more];
  const home = env["HOME"] ?? env["USERPROFILE"];
  if (!home) throw new Error("kubeconfig file not found in default location: no home directory");
  return [join(home, ".kube", "config")];
}

type Loaded = { readonly path: string; readonly config: Static<typeof Kubeconfig> };

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

/** The files that there are; of several, some may be missing. */
function loadFiles(paths: readonly string[]): Loaded[] {
  const missing: string[] = [];
  const loaded: Loaded[] = [];
  for (const path of paths) {
    let content: string;
    try {
      content = readFileSync(path, "utf8");
    } catch (error) {
      if (!isMissing(error)) {
        throw new Error(`cannot read kubeconfig ${path}: ${errorMessage(error)}`);
      }
      missing.push(path);
      continue;
    }
    const value: unknown = parseYaml(content);
    // an empty file is an empty configuration
    loaded.push({ path, config: read(Kubeconfig, value ?? {}, `kubeconfig ${path}`) });
  }
  if (loaded.length === 0) throw new Error(`kubeconfig file not found at ${missing.join(", ")}`);
  return loaded;
}

/** The first entry of a name, with the folder of the file that has it. */
function findEntry<Item extends { readonly name: string }>(
  files: readonly Loaded[],
  { name, of }: { name: string; of: (config: Loaded["config"]) => Item[] | null | undefined },
): { readonly entry: Item; readonly folder: string } | null {
  for (const { path, config } of files) {
    const entry = of(config)?.find((item) => item.name === name);
    if (entry) return { entry, folder: dirname(path) };
  }
  return null;
}

const place = (folder: string, file: string): string =>
  isAbsolute(file) ? file : join(folder, file);

type InFile = {
  readonly folder: string;
  readonly data: string | undefined;
  readonly file: string | undefined;
};
/** Inline base64 wins over a file, as with kubectl. */
function bytes({ folder, data, file }: InFile): Buffer | undefined {
  if (data) return Buffer.from(data, "base64");
  return file ? readFileSync(place(folder, file)) : undefined;
}

/** A token in a file is the newer one; the inline one stands in when the file cannot be read. */
function tokenOf(user: Static<typeof User>, folder: string): string | undefined {
  const { token, tokenFile } = user;
  if (!tokenFile) return token;
  try {
    return readFileSync(place(folder, tokenFile), "utf8").trim();
  } catch (error) {
    if (token) return token;
    throw new Error(`cannot read tokenFile ${tokenFile}: ${errorMessage(error)}`);
  }
}

/** What a credential plugin may be told of the cluster. */
function clusterInfo(cluster: Static<typeof Cluster>, ca: Buffer | undefined): object {
  const config = cluster.extensions?.find(
    ({ name }) => name === "client.authentication.k8s.io/exec",
  );
  return {
    server: cluster.server,
    ...(cluster["tls-server-name"] ? { "tls-server-name": cluster["tls-server-name"] } : {}),
    ...(cluster["insecure-skip-tls-verify"] ? { "insecure-skip-tls-verify": true } : {}),
    ...(ca ? { "certificate-authority-data": ca.toString("base64") } : {}),
    ...(config ? { config: config.extension } : {}),
  };
}

/** The API server of the current context, ready to be called. @throws saying what is missing */
export async function loadEndpoint(
  paths: readonly string[],
  plugin: PluginContext,
): Promise<Endpoint> {
  const files = loadFiles(paths);
  const where = `kubeconfig ${files.map(({ path }) => path).join(", ")}`;
  const wanted = files.map(({ config }) => config["current-context"]).find(Boolean) ?? "";
  const found = findEntry(files, { name: wanted, of: ({ contexts }) => contexts });
  if (!found) throw new Error(`${where}: no current context "${wanted}"`);
  const { context } = found.entry;
  const foundCluster = findEntry(files, { name: context.cluster, of: ({ clusters }) => clusters });
  if (!foundCluster) throw new Error(`${where}: no cluster "${context.cluster}"`);
  const { cluster } = foundCluster.entry;
  const foundUser = findEntry(files, { name: context.user ?? "", of: ({ users }) => users });
  const user = foundUser?.entry.user ?? {};
  if (cluster["proxy-url"]) throw new Error(`${where}: proxy-url is not supported`);
  if (user["auth-provider"]) {
    throw new Error(`${where}: auth-provider is not supported; use an exec plugin or a token`);
  }

  const ca = bytes({
    folder: foundCluster.folder,
    data: cluster["certificate-authority-data"],
    file: cluster["certificate-authority"],
  });
  const folder = foundUser?.folder ?? "";
  const exec = user.exec
    ? await runCredentialPlugin(
        user.exec,
        { folder, cluster: () => clusterInfo(cluster, ca) },
        plugin,
      )
    : {};
  const cert =
    exec.clientCertificateData ??
    bytes({ folder, data: user["client-certificate-data"], file: user["client-certificate"] });
  const key =
    exec.clientKeyData ??
    bytes({ folder, data: user["client-key-data"], file: user["client-key"] });
  const token = exec.token ?? tokenOf(user, folder);
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
