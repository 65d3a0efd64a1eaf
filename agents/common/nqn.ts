/**
 * NVMe qualified names: of our subsystems and of the hosts that may connect to them.
 *
 * Source: NVM Express Base Specification, "NVMe Qualified Names"; names as Mayastor publishes them.
 */
import { SvcError } from "./errors.ts";

export const NQN_PREFIX = "nqn.2019-05.io.openebs";
export const NQN_LENGTH_MIN = 11;
export const NQN_LENGTH_MAX = 223;

const BY_UUID = /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f-]{36}$/i;
const BY_DOMAIN = /^nqn\.\d{4}-\d{2}\.([A-Za-z0-9.-]{1,63}):.+$/;

/** Name of the subsystem that serves a volume (by volume uuid) or a replica (by replica uuid). */
export function subsystemNqn(name: string): string {
  return `${NQN_PREFIX}:${name}`;
}

/** The name a node uses as an initiator. */
export function nodeHostNqn(node: string): string {
  return `${NQN_PREFIX}:node-name:${node}`;
}

export function isNqn(text: string): boolean {
  if (text.length < NQN_LENGTH_MIN || text.length > NQN_LENGTH_MAX) return false;
  return BY_UUID.test(text) || BY_DOMAIN.test(text);
}

/** @throws {SvcError} `invalid-argument` */
export function parseNqn(text: string): string {
  if (!isNqn(text)) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read NQN "${text}": want nqn.yyyy-mm.<domain>:<name> of ${NQN_LENGTH_MIN} to ${NQN_LENGTH_MAX} characters`,
    );
  }
  return text;
}
