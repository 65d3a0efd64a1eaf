/**
 * Which address the NVMe-oF target listens on.
 *
 * Order, as published: `--tgt-iface` (or NVMF_TGT_IFACE), then MY_POD_IP, then 127.0.0.1.
 * Invariant: an interface given must match exactly one local IPv4 address.
 */
import { isIPv4 } from "node:net";
import type { NetworkInterfaceInfo } from "node:os";
import { SvcError } from "#common/errors.ts";

export type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

const DEFAULT_ADDRESS = "127.0.0.1";

function ipv4ToNumber(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

function inSubnet(address: string, subnet: string): boolean {
  const [base = "", bits = ""] = subnet.split("/");
  if (!isIPv4(base) || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) {
    throw new SvcError("invalid-argument", `"${subnet}" is not a subnet: want a.b.c.d/nn`);
  }
  const size = 2 ** (32 - Number(bits));
  return Math.floor(ipv4ToNumber(address) / size) === Math.floor(ipv4ToNumber(base) / size);
}

function matcher(wanted: string): (name: string, info: NetworkInterfaceInfo) => boolean {
  const [, kind, value] = /^(name|mac|ip|subnet):(.+)$/.exec(wanted) ?? [];
  if (kind === undefined || value === undefined) return (name) => name === wanted;
  switch (kind) {
    case "mac":
      return (_, info) => info.mac.toLowerCase() === value.toLowerCase();
    case "ip":
      return (_, info) => info.address === value;
    case "subnet":
      return (_, info) => inSubnet(info.address, value);
    default:
      return (name) => name === value;
  }
}

/** @throws {SvcError} `invalid-argument` */
export function targetAddress({
  tgtIface,
  podIp,
  interfaces,
}: {
  tgtIface: string | null;
  podIp: string | null;
  interfaces: Interfaces;
}): string {
  if (tgtIface !== null) {
    const matches = matcher(tgtIface);
    const found = Object.entries(interfaces).flatMap(([name, infos]) =>
      (infos ?? [])
        .filter((info) => info.family === "IPv4" && matches(name, info))
        .map((info) => info.address),
    );
    const [address] = found;
    if (address !== undefined && found.length === 1) return address;
    throw new SvcError(
      "invalid-argument",
      `Cannot use target interface "${tgtIface}": it matches ${found.length} IPv4 addresses, not one`,
    );
  }
  if (podIp !== null && podIp !== "") {
    if (isIPv4(podIp)) return podIp;
    throw new SvcError("invalid-argument", `MY_POD_IP "${podIp}" is not an IPv4 address`);
  }
  return DEFAULT_ADDRESS;
}
