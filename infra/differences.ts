/**
 * Where a default differs from the published one, and why.
 * Invariant: this is all of it: values_test.ts fails on any other difference.
 */

const NODE = "a Node process needs more than the published figure to start";

/** Value name to reason; a name stands for everything below it too. */
export const DIFFERENCES: Readonly<Record<string, string>> = {
  "image.tag": "empty means the version of this release",
  "image.pullPolicy":
    "tags are never moved, and a storage pod must restart while the registry is down",
  "base.initContainers.containers": "the same probes, with a pinned image",
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
