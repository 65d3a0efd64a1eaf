/**
 * What our engines say beside the published registration message.
 *
 * Why a header and not a field: the message is published; a control plane that doesn't know the header just sees
 * a heartbeat ahead of its time.
 */

/** Metadata of Register: a nexus of the node changed (a child faulted, a rebuild ended): read the node now. */
export const NODE_CHANGED_HEADER = "mayastor-node-changed";

/** Metadata of Deregister: the instance uuid of the engine that goes. Its message has only the node's name. */
export const INSTANCE_HEADER = "mayastor-instance";

/** `host:port` of what an engine registers with, which may be a URL. */
export function bareEndpoint(endpoint: string): string {
  return endpoint.replace(/^[a-z]+:\/\//, "");
}
