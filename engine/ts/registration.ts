/**
 * Registration with agent-core: "I am here" each period, "I go" on a clean stop.
 *
 * Invariants: a failure is logged once until the next success; nothing here ends the engine: it
 * serves I/O with or without a control plane.
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
import { VERSION } from "./version.ts";

const AGENT_CORE_PORT = 50051;
/** A clean stop does not wait long for a control plane that is gone. */
const DEREGISTER_MS = 2_000;

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

  /** Deregisters; a control plane that cannot be told finds out by its own watchdog. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    await this.#running;
    try {
      await this.#client.rpc.deregister(
        { id: this.#identity.nodeName },
        { deadlineMs: DEREGISTER_MS },
      );
      this.#log.info("deregistered", { "node.id": this.#identity.nodeName });
    } catch (error) {
      this.#log.warn("not deregistered", { "node.id": this.#identity.nodeName, error });
    }
    this.#client.close();
  }

  async #run(signal: AbortSignal): Promise<void> {
    let state: "new" | "registered" | "failing" = "new";
    while (!signal.aborted) {
      try {
        await this.#client.rpc.register(registerRequest(this.#identity), { signal });
        if (state !== "registered") {
          this.#log.info("registered", {
            "node.id": this.#identity.nodeName,
            "grpc.endpoint": this.#identity.grpcEndpoint,
          });
        }
        state = "registered";
      } catch (error) {
        if (signal.aborted) return;
        if (state !== "failing") this.#log.warn("not registered", { error });
        state = "failing";
      }
      // A rejected sleep means stop; the loop's condition sees it.
      await this.#clock.sleep(this.#periodMs, signal).catch(() => {});
    }
  }
}
