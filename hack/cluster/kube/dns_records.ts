/**
 * The names of a cluster, from its Services and Endpoints, as the specification of cluster DNS has them.
 * Pure: what dns_main.ts watches goes in, a table of names comes out.
 * Source: Kubernetes DNS-Based Service Discovery, version 1.1.0; here A, SRV, CNAME and PTR records.
 */

export interface Service {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: {
    readonly type?: string;
    readonly clusterIP?: string;
    readonly externalName?: string;
    readonly ports?: readonly Port[];
  };
}

interface Port {
  readonly name?: string;
  readonly port: number;
  readonly protocol?: string;
}

interface EndpointAddress {
  readonly ip: string;
  readonly hostname?: string;
}

export interface Endpoints {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly subsets?: readonly {
    readonly addresses?: readonly EndpointAddress[];
    readonly ports?: readonly Port[];
  }[];
}

export type DnsRecord =
  | { readonly type: "A"; readonly address: string }
  | { readonly type: "CNAME" | "PTR"; readonly target: string }
  | { readonly type: "SRV"; readonly port: number; readonly target: string };

/** Records by lower case name without a dot at the end. */
export type Zone = ReadonlyMap<string, readonly DnsRecord[]>;

class ZoneBuilder {
  readonly records = new Map<string, DnsRecord[]>();

  /** Makes the name exist, with or without records. */
  name(name: string): DnsRecord[] {
    const key = name.toLowerCase();
    const known = this.records.get(key);
    if (known !== undefined) return known;
    const made: DnsRecord[] = [];
    this.records.set(key, made);
    return made;
  }

  address(name: string, ip: string): void {
    this.name(name).push({ type: "A", address: ip });
  }

  reverse(ip: string, target: string): void {
    const name = `${ip.split(".").reverse().join(".")}.in-addr.arpa`;
    if (!this.records.has(name)) this.name(name).push({ type: "PTR", target });
  }

  service(base: string, ports: readonly Port[], target: string): void {
    for (const { name, port, protocol = "TCP" } of ports) {
      if (name === undefined || name === "") continue;
      this.name(`_${name}._${protocol}.${base}`).push({ type: "SRV", port, target });
    }
  }
}

const keyOf = ({ metadata: { namespace, name } }: Service | Endpoints) => `${namespace}/${name}`;

export function buildZone(
  services: Iterable<Service>,
  endpoints: Iterable<Endpoints>,
  domain: string,
): Zone {
  const zone = new ZoneBuilder();
  const endpointsOf = new Map([...endpoints].map((each) => [keyOf(each), each]));
  for (const service of services) {
    const { metadata, spec } = service;
    const base = `${metadata.name}.${metadata.namespace}.svc.${domain}`;
    zone.name(base);
    if (spec.type === "ExternalName") {
      if (spec.externalName !== undefined)
        zone.name(base).push({ type: "CNAME", target: spec.externalName });
    } else if (spec.clusterIP === "None") {
      addHeadless(zone, base, endpointsOf.get(keyOf(service)));
    } else if (spec.clusterIP !== undefined && spec.clusterIP !== "") {
      zone.address(base, spec.clusterIP);
      zone.reverse(spec.clusterIP, base);
      zone.service(base, spec.ports ?? [], base);
    }
  }
  return zone.records;
}

/** The Service's name has the addresses of all ready pods, and each pod of a StatefulSet has a name of its own. */
function addHeadless(zone: ZoneBuilder, base: string, endpoints: Endpoints | undefined): void {
  for (const { addresses = [], ports = [] } of endpoints?.subsets ?? []) {
    for (const { ip, hostname } of addresses) {
      const target = `${hostname ?? ip.replaceAll(".", "-")}.${base}`;
      zone.address(base, ip);
      zone.address(target, ip);
      zone.reverse(ip, target);
      zone.service(base, ports, target);
    }
  }
}

export type Answer =
  | { readonly found: "records"; readonly records: readonly (DnsRecord & { name: string })[] }
  | { readonly found: "name-only" | "nothing" };

/** Answers one question; names outside the cluster are not known: there is nobody to ask. */
export function lookUp(zone: Zone, name: string, type: string): Answer {
  const key = name.toLowerCase().replace(/\.$/, "");
  const records = zone.get(key);
  if (records === undefined) {
    const below = `.${key}`;
    for (const known of zone.keys()) if (known.endsWith(below)) return { found: "name-only" };
    return { found: "nothing" };
  }
  const matching = records.filter((record) => record.type === type || record.type === "CNAME");
  const named = matching.map((record) => ({ ...record, name: key }));
  const [first] = named;
  if (first === undefined) return { found: "name-only" };
  if (first.type !== "CNAME" || type === "CNAME") return { found: "records", records: named };
  const target = lookUp(zone, first.target, type);
  return {
    found: "records",
    records: target.found === "records" ? [...named, ...target.records] : named,
  };
}
