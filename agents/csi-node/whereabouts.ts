/**
 * Where the target of a volume is now, by REST.
 *
 * Why: a publish context lives as long as its VolumeAttachment; a target that has moved meanwhile is found nowhere on a
 * node that has lost its connections in a reboot.
 * Invariants: only a target that is published to this very node is told; the NQN and the host stay those of the publish
 * context, so another volume's target, or one that lets in another host, is never connected to.
 */
import { type Clock, deadlineSignal } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import { type Volume, VolumeSchema } from "#common/openapi/model.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import type { ConnectOptions } from "./nvme.ts";
import { parseNvmfUri } from "./uri.ts";

/** Longer than api-rest takes to read a volume from memory, shorter than kubelet's patience with a stage. */
const READ_MS = 5_000;

const parseVolume = parserOf(VolumeSchema, "a volume of the REST API", "internal");

/** The volume as the control plane sees it. @throws {SvcError} */
export type ReadVolume = (uuid: string) => Promise<Volume>;

export function restVolumes(endpoint: string, clock: Clock): ReadVolume {
  return async (uuid) => {
    const limit = deadlineSignal(clock, READ_MS);
    try {
      const answer = await fetch(`${endpoint}/v0/volumes/${uuid}`, { signal: limit.signal });
      const text = await answer.text();
      if (answer.ok) return parseVolume(JSON.parse(text));
      throw new SvcError("unavailable", `Cannot read volume ${uuid}: status ${answer.status}`);
    } catch (error) {
      if (error instanceof SvcError) throw error;
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
      const message = `Cannot read volume ${uuid} at ${endpoint}: ${errorMessage(cause)}`;
      throw new SvcError("unavailable", message, { cause: error });
    } finally {
      limit.clear();
    }
  };
}

export type Whereabouts =
  | { readonly is: "moved"; readonly address: string; readonly port: number }
  | { readonly is: "unknown"; readonly why: string };

/** Pure: where to connect instead, if the volume's target is for this node and is not where it was looked for. */
export function whereIs(
  { spec, state }: Volume,
  { connect, nodeName }: { readonly connect: ConnectOptions; readonly nodeName: string },
): Whereabouts {
  const unknown = (why: string): Whereabouts => ({ is: "unknown", why });
  const text = state.target?.deviceUri ?? "";
  if (spec.status !== "Created" || spec.target === undefined) return unknown("it is not published");
  if (text === "") return unknown("its target cannot be seen now");
  const uri = parseNvmfUri(text);
  if (uri.nqn !== connect.nqn) return unknown(`its target is ${uri.nqn}`);
  // Both lists where they are told: the one of nodes is what is wanted, the one of hosts what the target has.
  const nodes = spec.target.frontend_nodes ?? [];
  const isOurs = nodes.some(({ name }) => name === nodeName);
  const letsIn = uri.hostNqns.includes(connect.hostNqn);
  const refused = (nodes.length > 0 && !isOurs) || (uri.hostNqns.length > 0 && !letsIn);
  if (refused || (!isOurs && !letsIn)) return unknown("it is not published to this node");
  const { address, port } = uri;
  if (address === connect.address && port === connect.port) {
    return unknown("its target is at the published address");
  }
  return { is: "moved", address, port };
}
