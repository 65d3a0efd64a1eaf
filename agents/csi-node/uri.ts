/**
 * Device URIs as the control plane publishes them: `nvmf://<ip>:<port>/<nqn>[?hostnqn=<host nqn>]...`.
 */
import { SvcError } from "#common/errors.ts";
import { parseNqn } from "#common/nqn.ts";

const PORT_DEFAULT = 4420;

export type NvmfUri = {
  /** IPv6 without its brackets. */
  readonly address: string;
  readonly port: number;
  readonly nqn: string;
  /** Hosts that the target lets in; empty: any. */
  readonly hostNqns: readonly string[];
};

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null; // the only way it fails: a percent code that is cut or no UTF-8
  }
}

/** @throws {SvcError} `invalid-argument` */
export function parseNvmfUri(text: string): NvmfUri {
  const refuse = (why: string) =>
    new SvcError("invalid-argument", `Cannot read device URI "${text}": ${why}`);
  const url = URL.parse(text);
  if (url === null) throw refuse("it is not a URI");
  if (url.protocol !== "nvmf:" && url.protocol !== "nvmf+tcp:") {
    throw refuse("only scheme nvmf is supported");
  }
  const address = url.hostname.replace(/^\[(.*)\]$/, "$1");
  // Commas separate options on the way to the kernel.
  if (address === "" || /[\s,]/.test(address)) throw refuse("it has no host");
  const nqn = decoded(url.pathname.slice(1));
  if (nqn === null) throw refuse("bad percent code");
  if (nqn.includes(",")) throw refuse("its NQN has a comma");
  const hostNqns = url.searchParams.getAll("hostnqn");
  if (hostNqns.some((host) => host.includes(","))) throw refuse("a host NQN has a comma");
  return {
    address,
    port: url.port === "" ? PORT_DEFAULT : Number(url.port),
    nqn: parseNqn(nqn),
    hostNqns: hostNqns.map(parseNqn),
  };
}
