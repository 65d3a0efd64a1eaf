/**
 * The certificates of one cluster: an authority of its own and what it issues, as files in one folder.
 * Invariants: keys never leave the folder; nothing outlives the cluster.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Connection } from "#common/kubernetes/connection.ts";
import { run } from "./run.ts";

const DAYS = "3650";

export interface Issued {
  readonly cert: string;
  readonly key: string;
}

export interface Subject {
  readonly commonName: string;
  readonly organization?: string;
  /** `DNS:name` or `IP:address`. */
  readonly names?: readonly string[];
}

export class Pki {
  readonly folder: string;
  readonly ca: Issued;
  /** What signs and checks the tokens of service accounts. */
  readonly serviceAccount: { readonly key: string; readonly publicKey: string };

  private constructor(folder: string) {
    this.folder = folder;
    this.ca = { cert: path.join(folder, "ca.crt"), key: path.join(folder, "ca.key") };
    this.serviceAccount = {
      key: path.join(folder, "sa.key"),
      publicKey: path.join(folder, "sa.pub"),
    };
  }

  static async create(folder: string): Promise<Pki> {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const pki = new Pki(folder);
    const { ca, serviceAccount } = pki;
    await Promise.all(
      [ca.key, serviceAccount.key].map((key) =>
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]),
      ),
    );
    const request = ["openssl", "req", "-x509", "-new", "-sha256", "-key", ca.key, "-days", DAYS];
    await run([...request, "-subj", "/CN=cluster-authority", "-out", ca.cert]);
    const { key, publicKey } = serviceAccount;
    await run(["openssl", "ec", "-in", key, "-pubout", "-out", publicKey]);
    return pki;
  }

  async issue(name: string, { commonName, organization, names = [] }: Subject): Promise<Issued> {
    const at = (ending: string) => path.join(this.folder, `${name}.${ending}`);
    const subject = `${organization === undefined ? "" : `/O=${organization}`}/CN=${commonName}`;
    const usage = ["keyUsage=digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"];
    const alternative = names.length === 0 ? [] : [`subjectAltName=${names.join(",")}`];
    writeFileSync(at("ext"), `${[...usage, ...alternative].join("\n")}\n`);
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    await run([
      ...["openssl", "req", "-new", ...kind, "-subj", subject],
      ...["-keyout", at("key"), "-out", at("csr")],
    ]);
    await run([
      ...["openssl", "x509", "-req", "-sha256", "-in", at("csr"), "-days", DAYS],
      ...["-CA", this.ca.cert, "-CAkey", this.ca.key, "-extfile", at("ext"), "-out", at("crt")],
      ...["-set_serial", `0x0${randomBytes(12).toString("hex")}`],
    ]);
    return { cert: at("crt"), key: at("key") };
  }
}

/** A kubeconfig that needs no other file. JSON is YAML. */
export function kubeconfig(
  server: string,
  caFile: string,
  user: Issued | { readonly token: string },
  namespace = "default",
): string {
  const data = (file: string) => readFileSync(file).toString("base64");
  const credentials =
    "token" in user
      ? { token: user.token }
      : { "client-certificate-data": data(user.cert), "client-key-data": data(user.key) };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "cluster", cluster: { server, "certificate-authority-data": data(caFile) } },
    ],
    users: [{ name: "user", user: credentials }],
    contexts: [{ name: "context", context: { cluster: "cluster", user: "user", namespace } }],
    "current-context": "context",
  };
  return `${JSON.stringify(config, null, 1)}\n`;
}

interface OwnKubeconfig {
  readonly clusters: readonly [
    {
      readonly cluster: { readonly server: string; readonly "certificate-authority-data": string };
    },
  ];
  readonly users: readonly [
    { readonly user: Readonly<Record<"client-certificate-data" | "client-key-data", string>> },
  ];
}

/** Reads a kubeconfig that kubeconfig() wrote for a certificate; other kinds take the client library. */
export function readKubeconfig(file: string): Connection {
  const { clusters, users } = JSON.parse(readFileSync(file, "utf8")) as OwnKubeconfig; // our own file
  const decode = (text: string) => Buffer.from(text, "base64");
  const [{ cluster }] = clusters;
  const [{ user }] = users;
  const credentials = {
    ca: decode(cluster["certificate-authority-data"]),
    cert: decode(user["client-certificate-data"]),
    key: decode(user["client-key-data"]),
  };
  return { server: cluster.server, credentials: async () => credentials };
}
