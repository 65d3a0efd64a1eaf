/**
 * What an operator should know of an installation before applying it: values that this release takes and cannot follow, images
 * that nobody can pull, ports that stay open.
 * Why not refused: a published values file has these as its defaults, and it has to load as it is.
 * Invariant: whatever a published default asks for and does not get is said here, or in the table of differences.
 */
import type { Install } from "./config.ts";
import { imageName, isOriginalPlace, LOCAL_PLACE } from "./images.ts";
import { PORTS } from "./names.ts";

function imageNotices({ values: { image } }: Install): string[] {
  const local = `${imageName(LOCAL_PLACE, "<program>")}: load them into each node, or push them and set image.registry and image.repo`;
  if (isOriginalPlace(image)) {
    return [
      `image.registry and image.repo name the images of the original Mayastor, whose programs take other arguments; the manifests name ${local}`,
    ];
  }
  return image.registry === LOCAL_PLACE.registry
    ? [`image.registry is not set; the manifests name ${local}`]
    : [];
}

function featureNotices({ values, replacedResources }: Install): string[] {
  const notInstalled = (value: string, what: string) => `${value}=true: ${what}; not installed`;
  return [
    ...(replacedResources.length > 0
      ? [
          `${replacedResources.join(", ")}: the published amounts fit other programs; those of this release are used`,
        ]
      : []),
    ...(values.agents.ha.enabled
      ? [notInstalled("agents.ha.enabled", "the ha agents are not in this release")]
      : []),
    ...(values.obs.callhome.enabled
      ? [notInstalled("obs.callhome.enabled", "nothing calls home in this release")]
      : []),
  ];
}

function networkNotices({ values }: Install): string[] {
  const { enabled, nodeCidrs } = values.networkPolicies;
  const open = `etcd (${PORTS.etcdClient}), agent-core (${PORTS.agentCore}) and api-rest (${PORTS.restHttps}, ${PORTS.restHttp})`;
  const set = "set networkPolicies.nodeCidrs to the addresses of your nodes";
  if (!enabled) {
    return [
      `networkPolicies.enabled=false: any pod may connect to ${open}, which ask for no password`,
    ];
  }
  return nodeCidrs.length > 0
    ? []
    : [
        `networkPolicies.nodeCidrs is empty: ${open} stay open to any address, because io-engine, csi-controller and csi-node connect from node addresses; ${set}`,
      ];
}

/** One sentence each, without a full stop. */
export function notices(install: Install): readonly string[] {
  return [...imageNotices(install), ...featureNotices(install), ...networkNotices(install)];
}
