/**
 * Where a default differs from the published one, and why.
 * Invariant: this is all of it: values_test.ts fails on any other difference.
 */

const PINNED = "the same probes, with a pinned image";
const NODE = "a Node process needs more than the published figure to start";

/** Value name to reason; a name stands for everything below it too. */
export const DIFFERENCES: Readonly<Record<string, string>> = {
  "image.registry": "the published one holds the original's programs; see Images",
  "image.repo": "the published one holds the original's programs; see Images",
  "image.tag": "empty means the version of this release",
  "image.pullPolicy":
    "tags are never moved, and a storage pod must restart while the registry is down",
  "base.initContainers.containers": PINNED,
  "base.initCoreContainers.containers": PINNED,
  "base.initRestContainer.initContainer": PINNED,
  "base.initHaNodeContainers.containers": PINNED,
  "base.jaeger.agent.initContainer": "no Jaeger is installed",
  "loki-stack.loki.initContainers": "the same command, with a smaller and pinned image",
  "agents.core.resources": NODE,
  "agents.ha.enabled": "the ha agents are not in this release",
  "apis.rest.resources": NODE,
  "operators.pool.resources": NODE,
  "csi.controller.resources": NODE,
  "csi.node.resources": NODE,
  "io_engine.resources.limits.hugepages2Mi": "this engine needs no hugepages",
  "io_engine.resources.requests.hugepages2Mi": "this engine needs no hugepages",
  "loki-stack.promtail.config.snippets.scrapeConfigs": "empty means the same one job",
  "obs.callhome.enabled": "nothing calls home",
};
