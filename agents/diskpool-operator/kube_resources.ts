/**
 * DiskPools and their events through the API server.
 *
 * Invariants: finalizer and status are server-side applied with the uid, so that a resource that was deleted is never
 * made again; each under a field manager of its own, because API servers before 1.22 do not tell an apply of the
 * status from one of the rest, and would take the finalizer for given up; the finalizer is taken off with the
 * resourceVersion that was read; an event is posted once for as long as what it says holds, and again when it comes back.
 */
import type { Clock } from "#common/clock.ts";
import { errorMessage, isKind } from "#common/errors.ts";
import type { KubeClient } from "#common/kubernetes/client.ts";
import type { Log } from "#common/log.ts";
import { DISKPOOL_KIND } from "#common/types/diskpool.ts";
import type { Events, Resources } from "./ports.ts";
import { API_VERSION, FINALIZER, identityOf, resourcePath } from "./resource.ts";

const FIELD_MANAGER = "operator-diskpool";
const STATUS_FIELD_MANAGER = "operator-diskpool-status";
/** As published. */
const REPORTER = "dsp-operator";
/** Of an event's message; Kubernetes' own limit. */
const NOTE_CHARS_MAX = 1024;
/** Different messages that one object may post; far above what its states can say. */
const NOTES_MAX = 100;

export function kubeResources(client: KubeClient): Resources {
  return {
    protect: (resource, signal) => {
      const { metadata, ...identity } = identityOf(resource);
      const body = { ...identity, metadata: { ...metadata, finalizers: [FINALIZER] } };
      return client.apply(resourcePath(resource), body, { fieldManager: FIELD_MANAGER, signal });
    },
    release: async (resource, signal) => {
      const { uid, resourceVersion } = resource;
      const finalizers = resource.finalizers.filter((name) => name !== FINALIZER);
      const body = { metadata: { uid, resourceVersion, finalizers } };
      try {
        await client.patch(resourcePath(resource), body, { type: "merge", signal });
      } catch (error) {
        if (!isKind(error, "not-found")) throw error; // gone: what was wanted
      }
    },
    report: (resource, status, signal) => {
      const body = { ...identityOf(resource), status };
      const path = `${resourcePath(resource)}/status`;
      return client.apply(path, body, { fieldManager: STATUS_FIELD_MANAGER, signal });
    },
  };
}

export function kubeEvents(
  client: KubeClient,
  { clock, log, instance }: { clock: Clock; log: Log; instance: string },
): Events {
  const posted = new Map<string, Set<string>>();
  return {
    forget: (uid) => {
      posted.delete(uid);
    },
    settle: (uid, events) => {
      const notes = posted.get(uid);
      const present = new Set(events.map(({ note }) => note));
      for (const note of notes ?? []) if (!present.has(note)) notes?.delete(note);
    },
    post: async ({ name, namespace, uid, resourceVersion }, event, signal) => {
      const notes = posted.get(uid) ?? new Set();
      posted.set(uid, notes);
      if (notes.has(event.note) || notes.size >= NOTES_MAX) return;
      const now = new Date(clock.now()).toISOString();
      const body = {
        apiVersion: "v1",
        kind: "Event",
        metadata: { generateName: `${name}.${clock.now().toString(16)}`, namespace },
        involvedObject: {
          apiVersion: API_VERSION,
          kind: DISKPOOL_KIND,
          name,
          namespace,
          uid,
          resourceVersion,
        },
        action: event.action,
        reason: event.reason,
        type: event.type,
        message: event.note.slice(0, NOTE_CHARS_MAX),
        count: 1,
        eventTime: now.replace("Z", "000Z"), // MicroTime
        firstTimestamp: now.replace(/\.\d+Z$/, "Z"),
        lastTimestamp: now.replace(/\.\d+Z$/, "Z"),
        reportingComponent: REPORTER,
        reportingInstance: instance,
        source: { component: REPORTER },
      };
      try {
        await client.create(`/api/v1/namespaces/${namespace}/events`, body, { signal });
        notes.add(event.note);
      } catch (error) {
        log.warn("event not posted", { diskpool: name, error: errorMessage(error) });
      }
    },
  };
}
