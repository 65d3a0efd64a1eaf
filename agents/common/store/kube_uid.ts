/**
 * The uid of the kube-system namespace: names our part of a shared store.
 *
 * Why: one GET with the pod's own service account; a whole Kubernetes client for it costs a second
 * of start-up.
 * Invariant: fatal when unreadable, because another uid means another (empty) cluster.
 */
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { SvcError } from "../errors.ts";
import type { Env } from "./keys.ts";

const ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
const TIMEOUT_MS = 10_000;
const BODY_BYTES_MAX = 1 << 20;

function get(options: {
  readonly host: string;
  readonly port: string;
  readonly ca: string;
  readonly token: string;
}): Promise<string> {
  const { host, port, ca, token } = options;
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, accept: "application/json" };
    const path = "/api/v1/namespaces/kube-system";
    const call = request({ host, port, path, ca, headers, timeout: TIMEOUT_MS }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        body += chunk;
        if (body.length > BODY_BYTES_MAX) call.destroy(new Error("answer is too long"));
      });
      response.on("end", () => {
        if (response.statusCode === 200) resolve(body);
        else reject(new Error(`HTTP ${response.statusCode}`));
      });
      response.on("error", reject);
    });
    call.on("timeout", () => call.destroy(new Error("timed out")));
    call.on("error", reject);
    call.end();
  });
}

/** @throws {SvcError} `failed-precondition` */
export async function kubeSystemUid(env: Env): Promise<string> {
  try {
    const [ca, token] = await Promise.all([
      readFile(`${ACCOUNT}/ca.crt`, "utf8"),
      readFile(`${ACCOUNT}/token`, "utf8"),
    ]);
    const host = env["KUBERNETES_SERVICE_HOST"] ?? "kubernetes.default.svc";
    const port = env["KUBERNETES_SERVICE_PORT"] ?? "443";
    const namespace: unknown = JSON.parse(await get({ host, port, ca, token: token.trim() }));
    const metadata =
      typeof namespace === "object" && namespace !== null && "metadata" in namespace
        ? namespace.metadata
        : null;
    if (typeof metadata === "object" && metadata !== null && "uid" in metadata) {
      if (typeof metadata.uid === "string" && metadata.uid !== "") return metadata.uid;
    }
    throw new Error("the answer has no metadata.uid");
  } catch (error) {
    throw new SvcError(
      "failed-precondition",
      "Cannot read the uid of namespace kube-system: check the service account's permissions",
      { cause: error },
    );
  }
}
