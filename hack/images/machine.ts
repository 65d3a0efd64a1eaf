/**
 * How this machine reaches package registries, as secrets for a build: npm's and apt's own settings.
 *
 * Why: a build inside of an image sees none of the machine's settings, and may not keep them.
 * Invariant: everything here is handed over as a build secret, which is never part of a layer or of an image's history.
 */
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";

/** Where a build finds its secrets; each file is named by its secret's id. */
const SECRETS = "/run/secrets";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
export const SUITE = "bookworm";

export type Mirrors = { readonly main: string; readonly security: string | null };

async function readIfThere(file: string): Promise<string> {
  return existsSync(file) ? readFile(file, "utf8") : "";
}

/** npm's settings of how a registry is reached; the rest is taste. */
export function registrySettings(npmrc: string): string[] {
  return npmrc
    .split("\n")
    .map((line) => line.trim())
    .filter((line) =>
      /^(registry|cafile|strict-ssl|proxy|https-proxy|noproxy|@[^=]+:registry|\/\/[^=]+)\s*=/.test(
        line,
      ),
    );
}

async function npmSecrets(): Promise<Record<string, string>> {
  const lines: string[] = [];
  for (const which of ["globalconfig", "userconfig"]) {
    const { stdout } = await execa("npm", ["config", "get", which], { stderr: "ignore" });
    lines.push(...registrySettings(await readIfThere(stdout.trim())));
  }
  const registry = process.env["NPM_CONFIG_REGISTRY"] ?? process.env["npm_config_registry"];
  if (registry !== undefined) lines.push(`registry=${registry}`);
  const cafile = lines.map((line) => /^cafile\s*=\s*(.+)$/.exec(line)?.[1]).findLast(Boolean);
  const authorities = cafile ?? process.env["NODE_EXTRA_CA_CERTS"] ?? "";
  const others = lines.filter((line) => !line.startsWith("cafile"));
  if (authorities === "" || !existsSync(authorities)) return { npmrc: `${others.join("\n")}\n` };
  return {
    npmrc: `${[...others, `cafile=${SECRETS}/ca.pem`].join("\n")}\n`,
    "ca.pem": await readFile(authorities, "utf8"),
  };
}

type Source = { readonly uri: string; readonly suites: readonly string[] };

/** Both formats of apt's sources: a line each, or paragraphs of fields. */
export function parseSources(text: string): Source[] {
  const lines = [...text.matchAll(/^deb(?:\s+\[[^\]]*\])?\s+(\S+)\s+(\S+)\s/gm)];
  const fields = text.split(/\n\s*\n/).map((paragraph) => ({
    uri: /^URIs:\s*(\S+)/m.exec(paragraph)?.[1],
    suites: /^Suites:\s*(.+)$/m.exec(paragraph)?.[1]?.split(/\s+/),
  }));
  return [
    ...lines.flatMap(([, uri, suite]) => (uri && suite ? [{ uri, suites: [suite] }] : [])),
    ...fields.flatMap(({ uri, suites }) => (uri && suites ? [{ uri, suites }] : [])),
  ];
}

/**
 * The Debian mirrors that this machine itself uses.
 * @throws when it is not a Debian 12 machine
 */
export async function debianMirrors(): Promise<Mirrors> {
  const parts = "/etc/apt/sources.list.d";
  const names = existsSync(parts) ? (await readdir(parts)).sort() : [];
  const files = ["/etc/apt/sources.list", ...names.map((name) => path.join(parts, name))];
  const sources = (await Promise.all(files.map(readIfThere))).flatMap(parseSources);
  const uriOf = (suite: string) => sources.find(({ suites }) => suites.includes(suite))?.uri;
  const main = uriOf(SUITE);
  if (main === undefined) {
    throw new Error(
      `Cannot find a mirror: no source of Debian ${SUITE} is configured; build with Docker instead`,
    );
  }
  return { main, security: uriOf(`${SUITE}-security`) ?? null };
}

async function aptSecrets(): Promise<Record<string, string>> {
  const { main, security } = await debianMirrors();
  const { stdout } = await execa("apt-config", ["dump"]);
  const settings = stdout
    .split("\n")
    .filter((line) => /^Acquire::(http|https|Check-|Retries|ForceIPv)/.test(line));
  const source = (uri: string, suite: string) => `deb [signed-by=${KEYRING}] ${uri} ${suite} main`;
  const sources = [
    source(main, SUITE),
    source(main, `${SUITE}-updates`),
    ...(security === null ? [] : [source(security, `${SUITE}-security`)]),
  ];
  return {
    "apt.conf": [
      ...settings,
      `Dir::Etc::SourceList "${SECRETS}/sources.list";`,
      'Dir::Etc::SourceParts "/dev/null";',
      "",
    ].join("\n"),
    "sources.list": `${sources.join("\n")}\n`,
  };
}

/** Writes the secrets into a folder that only this user reads; gives id and file of each. */
export async function writeSecrets(
  folder: string,
  { apt }: { readonly apt: boolean },
): Promise<ReadonlyMap<string, string>> {
  const all = { ...(await npmSecrets()), ...(apt ? await aptSecrets() : {}) };
  const files = new Map<string, string>();
  for (const [id, text] of Object.entries(all)) {
    const file = path.join(folder, id);
    await writeFile(file, text, { mode: 0o600 });
    files.set(id, file);
  }
  return files;
}
