/**
 * The firewall in front of io-engine's ports: reported always, opened only for a network that was named.
 *
 * Why a network: NVMe-oF targets and the engine's gRPC ask for no password, so they are opened to the
 * cluster's own addresses and never to everybody.
 */
import { isIPv6 } from "node:net";
import { assertNever } from "#common/errors.ts";
import { quote } from "../lib/shell.ts";
import type { Action } from "./actions.ts";
import { check, fileAction, isPending, type Plan } from "./checks.ts";
import type { Facts } from "./facts.ts";
import { PORTS, type Wanted } from "./options.ts";

const TAG = "mayastor-node-prep";
type Active = Exclude<Facts["firewall"], { kind: "none" }>;

export function planFirewall(facts: Facts, { openFirewall: network }: Wanted): Plan {
  const name = "firewall";
  const { firewall } = facts;
  if (firewall.kind === "none") {
    return { checks: [{ name, status: "ok", text: "none found that drops input" }], actions: [] };
  }
  const closed = PORTS.filter((port) => !isOpen(facts, firewall, port, network));
  const step = network === undefined ? "" : `40-firewall-${network.replaceAll(/[/:]/g, "_")}`;
  if (network === undefined) {
    const text = `${firewall.kind} has no rule for ${closed.join(", ")}: --open-firewall=CIDR adds it`;
    return {
      checks: [
        closed.length > 0
          ? { name, status: "warn", text }
          : { name, status: "ok", text: `${firewall.kind} lets the ports in` },
      ],
      actions: [],
    };
  }
  if (/[^A-Za-z0-9_. -]/.test(firewall.place)) {
    const text = `${firewall.kind} calls it "${firewall.place}": open ${PORTS.join(", ")} by hand`;
    return { checks: [{ name, status: "manual", text }], actions: [] };
  }
  const actions: Action[] = [];
  if (closed.length > 0 || isPending(facts, step)) actions.push(open(firewall, step, network));
  const checks = [];
  if (firewall.kind === "nftables") {
    if (firewall.config === "") {
      const text = "no nftables.conf: the rule is gone after a reboot; add it where yours are kept";
      checks.push({ name: "firewall at boot", status: "manual" as const, text });
    } else if (actions.length > 0 || facts.journal.has(step)) {
      actions.push(...persistNft(facts, firewall, network));
    }
  }
  checks.unshift(check(name, actions, `${firewall.kind} lets ${network} in`));
  return { checks, actions };
}

/** True when a rule lets `network` (or, unnamed, anyone at all) reach `port`. */
function isOpen(
  facts: Facts,
  firewall: Active,
  port: number,
  network: string | undefined,
): boolean {
  if (firewall.kind === "firewalld" && facts.firewallTarget === "ACCEPT") return true;
  return firewall.rules.some((rule) => {
    if (!new RegExp(`(?<![0-9.])${port}(?![0-9.])`).test(rule)) return false;
    switch (firewall.kind) {
      case "ufw":
        if (!/\bALLOW\b/.test(rule)) return false;
        return network === undefined || rule.includes("Anywhere") || rule.includes(network);
      case "firewalld":
        // A plain list of ports is open to all; a rich rule names its source.
        if (!rule.startsWith("rule ")) return rule.includes(`${port}/tcp`);
        return rule.includes("accept") && (network === undefined || rule.includes(`"${network}"`));
      case "nftables":
        if (!/\baccept\b/.test(rule)) return false;
        return network === undefined || !rule.includes("saddr") || rule.includes(network);
      default:
        return assertNever(firewall.kind);
    }
  });
}

function open(firewall: Active, name: string, network: string): Action {
  const what = `${firewall.kind}: let ${network} reach ${PORTS.join(", ")}`;
  switch (firewall.kind) {
    case "ufw": {
      const rule = `allow proto tcp from ${network} to any port ${PORTS.join(",")}`;
      return {
        kind: "run",
        name,
        what,
        command: `ufw ${rule} comment ${TAG}`,
        revert: `ufw delete ${rule}`,
        refresh: "ufw reload",
        touches: ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"],
      };
    }
    case "firewalld": {
      const zone = `firewall-cmd --permanent --zone=${firewall.place}`;
      const all = (verb: string) =>
        [
          ...PORTS.map((port) => `${zone} --${verb}-rich-rule=${quote(richRule(network, port))}`),
          "firewall-cmd --reload",
        ].join(" && ");
      const file = `/etc/firewalld/zones/${firewall.place}.xml`;
      return {
        kind: "run",
        name,
        what,
        command: all("add"),
        revert: all("remove"),
        refresh: "firewall-cmd --reload",
        touches: [file, `${file}.old`],
      };
    }
    case "nftables": {
      const chain = firewall.place;
      const tag = `${TAG} ${network}`;
      const remove = `nft -a list chain ${chain} | sed -n 's|.*comment "${tag}".*# handle \\([0-9]*\\).*|\\1|p' | while read -r handle; do nft delete rule ${chain} handle "$handle"; done`;
      return {
        kind: "run",
        name,
        what,
        command: `${remove} && nft ${quote(nftRule(firewall, network))}`,
        revert: remove,
        refresh: remove,
        touches: [],
      };
    }
    default:
      return assertNever(firewall.kind);
  }
}

const richRule = (network: string, port: number): string =>
  `rule family="${isNetworkV6(network) ? "ipv6" : "ipv4"}" source address="${network}" port port="${port}" protocol="tcp" accept`;

const nftRule = ({ place }: Active, network: string): string =>
  `insert rule ${place} ${isNetworkV6(network) ? "ip6" : "ip"} saddr ${network} tcp dport { ${PORTS.join(", ")} } accept comment "${TAG} ${network}"`;

const isNetworkV6 = (network: string): boolean => isIPv6(network.split("/")[0] ?? "");

/** The same rule at the end of nftables.conf, where the chain it names is already there. */
function persistNft(facts: Facts, firewall: Active, network: string): Action[] {
  const now = facts.files.get(firewall.config)?.toString() ?? "";
  const kept = now
    .split("\n")
    .filter((line) => !line.includes(`comment "${TAG} ${network}"`))
    .join("\n");
  const start = kept === "" || kept.endsWith("\n") ? kept : `${kept}\n`;
  return fileAction(facts, {
    name: "38-nftables-boot",
    path: firewall.config,
    content: `${start}${nftRule(firewall, network)}\n`,
  });
}
