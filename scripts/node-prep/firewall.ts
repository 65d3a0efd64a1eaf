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
import { type Check, check, isPending, type Plan } from "./checks.ts";
import type { Facts } from "./facts.ts";
import { PORTS, type Wanted } from "./options.ts";

const TAG = "mayastor-node-prep";
type Active = Exclude<Facts["firewall"], { kind: "none" }>;

export function planFirewall(facts: Facts, wanted: Wanted): Plan {
  const { checks, actions } = planActive(facts, wanted);
  const unseen: Check[] = [];
  if (facts.firewallLegacy) {
    const text = `iptables-legacy drops input too: see that its rules let ${PORTS.join(", ")} in`;
    unseen.push({ name: "iptables", status: "manual", text });
  }
  if (facts.firewallZones.length > 0) {
    const text = `only firewalld's default zone is looked at; in use are ${facts.firewallZones.join(", ")} too`;
    unseen.push({ name: "firewall zones", status: "warn", text });
  }
  return { checks: [...checks, ...unseen], actions };
}

function planActive(facts: Facts, { openFirewall: network }: Wanted): Plan {
  const name = "firewall";
  const { firewall } = facts;
  if (firewall.kind === "none") {
    return { checks: [{ name, status: "ok", text: "none found that drops input" }], actions: [] };
  }
  const closed = PORTS.filter((port) => !isOpen(facts, firewall, port, network));
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
  const suffix = network.replaceAll(/[/:]/g, "_");
  const step = `40-firewall-${suffix}`;
  const opening =
    closed.length > 0 || isPending(facts, step) ? [open(firewall, step, network)] : [];
  const lasting =
    firewall.kind === "nftables" && (opening.length > 0 || facts.journal.has(step))
      ? persistNft(facts, firewall, network, `38-nftables-boot-${suffix}`)
      : { checks: [], actions: [] };
  const actions = [...lasting.actions, ...opening];
  return {
    checks: [check(name, actions, `${firewall.kind} lets ${network} in`), ...lasting.checks],
    actions,
  };
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
        return (
          network === undefined || rule.includes("Anywhere") || rule.split(/\s+/).includes(network)
        );
      case "firewalld":
        // A plain list of ports is open to all; a rich rule names its source.
        if (!rule.startsWith("rule ")) return rule.includes(`${port}/tcp`);
        return rule.includes("accept") && (network === undefined || rule.includes(`"${network}"`));
      case "nftables":
        if (!/\baccept\b/.test(rule)) return false;
        return (
          network === undefined ||
          !rule.includes("saddr") ||
          rule.split(/[\s,{}]+/).includes(network)
        );
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

/** `nft -c` where none of the running tables are: it must accept what a boot will load. */
const NFT_CHECK = 'unshare -n -- nft -c -f "$1"';

/**
 * The same rule at the end of nftables.conf, when the chain is made there: loading is all or nothing, so a rule
 * for a chain that comes from elsewhere would keep the whole firewall from coming up.
 */
function persistNft(facts: Facts, firewall: Active, network: string, name: string): Plan {
  const line = nftRule(firewall, network);
  const text = facts.files.get(firewall.config)?.toString();
  if (text?.split("\n").includes(line) && !isPending(facts, name))
    return { checks: [], actions: [] };
  if (text === undefined || !declaresChain(text, firewall.place)) {
    const why =
      firewall.config === "" ? "no nftables.conf" : `${firewall.config} doesn't make that chain`;
    const manual = `${why}: the rule is gone after a reboot; add it where the chain is made: ${line}`;
    return {
      checks: [{ name: "firewall at boot", status: "manual", text: manual }],
      actions: [],
    };
  }
  const what = `add the rule to ${firewall.config}`;
  const action = {
    kind: "line",
    name,
    what,
    path: firewall.config,
    line,
    check: NFT_CHECK,
  } as const;
  return { checks: [], actions: [action] };
}

/** Whether an nftables file itself makes `place` (family, table, chain) in a table's block. */
export function declaresChain(file: string, place: string): boolean {
  const words = file
    .replaceAll(/(^|\s)#.*/g, "$1")
    .replaceAll(/"[^"]*"/g, '""')
    .replaceAll(/[{}]/g, " $& ")
    .split(/\s+/);
  let depth = 0;
  let table = "";
  for (const [index, word] of words.entries()) {
    if (word === "{") depth++;
    if (word === "}") depth--;
    if (depth === 0 && word === "table") {
      const name = words.slice(index + 1, index + 3);
      table = name[1] === "{" ? `ip ${name[0]}` : name.join(" ");
    }
    if (depth === 1 && word === "chain" && `${table} ${words[index + 1]}` === place) return true;
  }
  return false;
}
