/**
 * Plain calls to a real API server under one identity, with the status as a value: tests ask for refusals too.
 *
 * Why beside #common/kubernetes: that client knows the verbs of the agents and throws; a test needs every verb, must
 * see a 403 as an answer, and has to find where objects of any kind are served.
 */
import { readFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import path from "node:path";
import { parse as parseYaml } from "yaml";
import type { Manifest } from "../../../infra/snapshots.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
export type Answer = { readonly status: number; readonly body: unknown };
export type PatchType = "apply" | "merge";

/** An object of the API server: at least named and dated. */
export type KubeObject = {
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly generation?: number;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly finalizers?: readonly string[];
    readonly managedFields?: readonly {
      readonly manager: string;
      readonly operation: string;
      readonly fieldsV1?: object;
    }[];
  };
  readonly [field: string]: unknown;
};

/** Where a kind is served. */
export type Resource = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  readonly verbs: readonly string[];
};

type Kubeconfig = {
  readonly clusters: readonly { readonly cluster: Readonly<Record<string, string>> }[];
  readonly users: readonly { readonly user: Readonly<Record<string, string>> }[];
};

const CALL_MS = 30_000;
const PATCH_CONTENT: Readonly<Record<PatchType, string>> = {
  apply: "application/apply-patch+yaml",
  merge: "application/merge-patch+json",
};

/** A field of a kubeconfig that is either there (base64) or in a file. */
function material(
  from: Readonly<Record<string, string>>,
  name: string,
  folder: string,
): Buffer | null {
  const data = from[`${name}-data`];
  if (data !== undefined) return Buffer.from(data, "base64");
  const file = from[name];
  return file === undefined ? null : readFileSync(path.resolve(folder, file));
}

export class KubeApi {
  readonly server: string;
  readonly ca: Buffer;
  readonly token: string | null;
  readonly #identity: object;
  #resources: readonly Resource[] | null = null;

  /** @param file a kubeconfig with one cluster and one user, by certificate or token */
  constructor(file: string) {
    const config = parseYaml(readFileSync(file, "utf8")) as Kubeconfig; // written by the control plane
    const cluster = config.clusters[0]?.cluster ?? {};
    const user = config.users[0]?.user ?? {};
    const folder = path.dirname(file);
    const ca = material(cluster, "certificate-authority", folder);
    const server = cluster["server"];
    if (server === undefined || ca === null) throw new Error(`No server or CA in ${file}`);
    this.server = server;
    this.ca = ca;
    this.token = user["token"] ?? null;
    const cert = material(user, "client-certificate", folder);
    const key = material(user, "client-key", folder);
    this.#identity = cert === null || key === null ? {} : { cert, key };
  }

  /** Any call; only a server that is not reached throws. */
  async call(
    method: Method,
    at: string,
    { body, patch = "merge" }: { body?: unknown; patch?: PatchType } = {},
  ): Promise<Answer> {
    const payload = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const contentType = method === "PATCH" ? PATCH_CONTENT[patch] : "application/json";
    const headers = {
      accept: "application/json",
      ...(this.token === null ? {} : { authorization: `Bearer ${this.token}` }),
      ...(payload === null
        ? {}
        : { "content-type": contentType, "content-length": payload.length }),
    };
    return await new Promise((resolve, reject) => {
      const options = { method, headers, ca: this.ca, timeout: CALL_MS, ...this.#identity };
      const request = httpsRequest(new URL(this.server + at), options, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part: string) => {
          text += part;
        });
        response.on("error", reject);
        response.on("end", () => {
          let parsed: unknown = text;
          try {
            parsed = JSON.parse(text);
          } catch {
            // not JSON: the text itself is the answer
          }
          resolve({ status: response.statusCode ?? 0, body: parsed });
        });
      });
      request.on("timeout", () => request.destroy(new Error(`${method} ${at}: timed out`)));
      request.on("error", reject);
      request.end(payload ?? undefined);
    });
  }

  /** A call that must succeed. @throws with the server's message */
  async must(method: Method, at: string, options: { body?: unknown; patch?: PatchType } = {}) {
    const { status, body } = await this.call(method, at, options);
    if (status < 200 || status > 299) {
      throw new Error(`${method} ${at}: status ${status}: ${messageOf(body)}`);
    }
    return body as KubeObject; // the answer of a successful call is an object (or a list of them)
  }

  /** The object, or null when there is none. */
  async find(at: string): Promise<KubeObject | null> {
    const { status, body } = await this.call("GET", at);
    if (status === 404) return null;
    if (status !== 200) throw new Error(`GET ${at}: status ${status}: ${messageOf(body)}`);
    return body as KubeObject; // as above
  }

  async list(at: string): Promise<readonly KubeObject[]> {
    const body = await this.must("GET", at);
    const kind = body.kind?.replace(/List$/, "") ?? "";
    return (body["items"] as KubeObject[] | null)?.map((item) => ({ kind, ...item })) ?? [];
  }

  /** Everything that is served now, each kind in its preferred version. */
  async discover(): Promise<readonly Resource[]> {
    type Group = {
      preferredVersion: { groupVersion: string };
      versions: { groupVersion: string }[];
    };
    const groups = (await this.must("GET", "/apis"))["groups"] as Group[];
    const versions = ["v1", ...groups.flatMap((g) => g.versions.map((v) => v.groupVersion))];
    const found: Resource[] = [];
    for (const apiVersion of versions) {
      const root = apiVersion === "v1" ? "/api/v1" : `/apis/${apiVersion}`;
      const { status, body } = await this.call("GET", root);
      if (status !== 200) continue; // a CRD that has just gone
      const { resources } = body as {
        resources: { name: string; kind: string; namespaced: boolean; verbs: string[] }[];
      };
      for (const { name, kind, namespaced, verbs } of resources) {
        found.push({ apiVersion, kind, plural: name, namespaced, verbs });
      }
    }
    this.#resources = found;
    return found;
  }

  /** Where an object is; null when its kind and version are not served. */
  async pathOf({ apiVersion, kind, metadata }: Manifest): Promise<string | null> {
    const find = (resources: readonly Resource[]) =>
      resources.find(
        (one) => one.apiVersion === apiVersion && one.kind === kind && !one.plural.includes("/"),
      );
    const resource =
      find(this.#resources ?? (await this.discover())) ?? find(await this.discover());
    if (resource === undefined) return null;
    return `${collection(resource, metadata.namespace ?? "default")}/${metadata.name}`;
  }
}

/** The path of a collection; of cluster-scoped kinds the namespace is left out. */
export function collection(
  { apiVersion, plural, namespaced }: Pick<Resource, "apiVersion" | "plural" | "namespaced">,
  namespace?: string,
): string {
  const root = apiVersion === "v1" ? "/api/v1" : `/apis/${apiVersion}`;
  return namespaced && namespace !== undefined
    ? `${root}/namespaces/${namespace}/${plural}`
    : `${root}/${plural}`;
}

export function messageOf(body: unknown): string {
  if (typeof body === "object" && body !== null && "message" in body) return String(body.message);
  return typeof body === "string" ? body : JSON.stringify(body);
}
