/**
 * Finds the REST server: given by hand, or in the cluster through the API server's service proxy (so that no port
 * of the cluster has to be open to the outside).
 */
import { Type } from "typebox";
import Value from "typebox/value";
import type { Clock } from "#common/clock.ts";
import { type Endpoint, exchange } from "./rest_client.ts";

const SERVICE_LABEL = "app=api-rest";
const PORT_NAME = "http";

const ServiceList = Type.Object({
  items: Type.Array(
    Type.Object({
      metadata: Type.Object({ name: Type.String() }),
      spec: Type.Object({
        ports: Type.Optional(Type.Array(Type.Object({ name: Type.Optional(Type.String()) }))),
      }),
    }),
  ),
});

export type DiscoveryOptions = {
  readonly rest: string | undefined;
  readonly kubeConfigPath: string | undefined;
  readonly namespace: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly env: NodeJS.ProcessEnv;
  /** ends the search */
  readonly signal: AbortSignal;
};

/** @throws saying which step failed */
export async function findEndpoint(options: DiscoveryOptions): Promise<Endpoint> {
  const { rest, namespace, timeoutMs, clock, env, signal } = options;
  if (rest !== undefined) {
    if (!/^https?:\/\//.test(rest) || !URL.canParse(rest)) {
      throw new Error(`"${rest}" is not a URL: write for example http://localhost:8081`);
    }
    return { baseUrl: rest };
  }
  // with --rest, which is the fast way, nothing of this is needed
  const { kubeconfigPaths, loadEndpoint } = await import("./kubeconfig.ts");
  const paths = kubeconfigPaths(options.kubeConfigPath, env);
  const server = await loadEndpoint(paths, { env, clock, timeoutMs, signal });
  const services = `/api/v1/namespaces/${encodeURIComponent(namespace)}/services`;
  const path = `${services}?labelSelector=${encodeURIComponent(SERVICE_LABEL)}`;
  const answer = await exchange(server, { method: "GET", path, timeoutMs, clock, signal });
  if (answer.status !== 200) {
    throw new Error(`cannot list services in namespace ${namespace}: status ${answer.status}`);
  }
  const list: unknown = JSON.parse(answer.text);
  if (!Value.Check(ServiceList, list)) throw new Error("unexpected answer to the list of services");
  const service = list.items.find(({ spec }) => spec.ports?.some(({ name }) => name === PORT_NAME));
  if (!service) {
    throw new Error(
      `no service with label ${SERVICE_LABEL} and a port named ${PORT_NAME} in namespace ${namespace}`,
    );
  }
  const proxied = `${services}/${encodeURIComponent(service.metadata.name)}:${PORT_NAME}/proxy`;
  return { ...server, baseUrl: server.baseUrl + proxied };
}
