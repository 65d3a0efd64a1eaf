/**
 * Registration with agent-core: "I am here" each period, "I go" on a clean stop, and "look at me" when a nexus
 * changed, so that nobody has to poll for it.
 *
 * Invariants: a failure is logged once until the next success and is tried again soon, then ever slower down to the
 * period; news is told at once, but at most every CHANGE_GAP_MS, and is never dropped, only merged; nothing here
 * ends the engine: it serves I/O with or without a control plane.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Clock } from "#common/clock.ts";
import type { Log } from "#common/log.ts";
import {
  APIVersion,
  type RegisterRequest,
  RegisterRequestSchema,
  Registration as RegistrationService,
} from "#common/proto/generated/mayastor/v1/registration_pb.ts";
import { type GrpcClient, grpcTarget, makeClient } from "#common/rpc/grpc.ts";
import { INSTANCE_HEADER, NODE_CHANGED_HEADER } from "#common/rpc/registration.ts";
import { VERSION } from "./version.ts";

const AGENT_CORE_PORT = 50051;
/** A clean stop does not wait long for a control plane that is gone. */
const DEREGISTER_MS = 2_000;
/** The first pause after a failure; it doubles up to the period. */
const RETRY_MS_FIRST = 250;
/** Many nexuses that change together (their common peer died) are one piece of news. */
const CHANGE_SETTLE_MS = 20;
const CHANGE_GAP_MS = 250;

export type Identity = {
  readonly nodeName: string;
  readonly grpcEndpoint: string;
  readonly instanceUuid: string;
  readonly hostNqn: string;
  readonly anaEnabled: boolean;
};

export function registerRequest(identity: Identity): RegisterRequest {
  const request: MessageInitShape<typeof RegisterRequestSchema> = {
    id: identity.nodeName,
    grpcEndpoint: identity.grpcEndpoint,
    instanceUuid: identity.instanceUuid,
    apiVersion: [APIVersion.V1],
    hostnqn: identity.hostNqn,
    features: { asymmetricNamespaceAccess: identity.anaEnabled },
    version: VERSION,
  };
  return create(RegisterRequestSchema, request);
}

export class Registration {
  readonly #client: GrpcClient<(typeof RegistrationService)["method"]>;
  readonly #identity: Identity;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #periodMs: number;
  readonly #stop = new AbortController();
  #running: Promise<void> | null = null;
  #changed = false;
  #wake: () => void = () => {};

  constructor(options: {
    endpoint: string;
    identity: Identity;
    periodMs: number;
    timeoutMs: number;
    clock: Clock;
    log: Log;
  }) {
    this.#client = makeClient(RegistrationService, grpcTarget(options.endpoint, AGENT_CORE_PORT), {
      deadlineMs: options.timeoutMs,
      clock: options.clock,
    });
    this.#identity = options.identity;
    this.#periodMs = options.periodMs;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  start(): void {
    this.#running ??= this.#run(this.#stop.signal);
  }

  /** A nexus changed: agent-core is told soon. */
  changed(): void {
    this.#changed = true;
    this.#wake();
  }

  /** Deregisters; a control plane that cannot be told finds out by its own watchdog. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    await this.#running;
    try {
      await this.#client.rpc.deregister(
        { id: this.#identity.nodeName },
        {
          deadlineMs: DEREGISTER_MS,
          metadata: { [INSTANCE_HEADER]: this.#identity.instanceUuid },
        },
      );
      this.#log.info("deregistered", { "node.id": this.#identity.nodeName });
    } catch (error) {
      this.#log.warn("not deregistered", { "node.id": this.#identity.nodeName, error });
    }
    this.#client.close();
  }

  async #run(signal: AbortSignal): Promise<void> {
    let state: "new" | "registered" | "failing" = "new";
    let retryMs = RETRY_MS_FIRST;
    while (!signal.aborted) {
      const changed = this.#changed;
      this.#changed = false;
      const metadata: Record<string, string> = changed ? { [NODE_CHANGED_HEADER]: "1" } : {};
      try {
        await this.#client.rpc.register(registerRequest(this.#identity), { signal, metadata });
        if (state !== "registered") {
          this.#log.info("registered", {
            "node.id": this.#identity.nodeName,
            "grpc.endpoint": this.#identity.grpcEndpoint,
          });
        }
        state = "registered";
        retryMs = RETRY_MS_FIRST;
        await this.#pauseOrNews(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#changed ||= changed;
        if (state !== "failing") this.#log.warn("not registered", { error });
        state = "failing";
        // A rejected sleep means stop; the loop's condition sees it.
        await this.#clock.sleep(Math.min(retryMs, this.#periodMs), signal).catch(() => {});
        retryMs = Math.min(retryMs * 2, this.#periodMs);
      }
    }
  }

  /** Until the period is over, or there is news and the last word is a while ago. */
  async #pauseOrNews(signal: AbortSignal): Promise<void> {
    const saidMs = this.#clock.monotonicMs();
    if (!this.#changed) {
      const news = new AbortController();
      this.#wake = () => news.abort();
      const either = AbortSignal.any([signal, news.signal]);
      await this.#clock.sleep(this.#periodMs, either).catch(() => {}); // woken, or asked to stop
      this.#wake = () => {};
    }
    if (!this.#changed || signal.aborted) return;
    const gapMs = saidMs + CHANGE_GAP_MS - this.#clock.monotonicMs();
    const waitMs = Math.max(CHANGE_SETTLE_MS, gapMs);
    await this.#clock.sleep(waitMs, signal).catch(() => {}); // asked to stop
  }
}
