/**
 * A CSI client for tests: calls by name with JSON messages, over a plugin's unix socket.
 * Also a program (bundled for a guest): `client <socket> <file>`, where the file holds a list of calls; it prints one
 * JSON line for each and never stops at a failure: what was expected is for the test to say.
 */
import { readFileSync } from "node:fs";
import { type DescMethod, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { status } from "@grpc/grpc-js";
import { SvcError } from "#common/errors.ts";
import { NodePlugin } from "#common/proto/generated/csi/node_service_pb.ts";
import { NvmeOperations } from "#common/proto/generated/csi/nvme_operations_pb.ts";
import { Controller, Identity, Node } from "#common/proto/generated/csi/v1/csi_pb.ts";
import { callsOn, openChannel } from "#common/rpc/grpc.ts";
import { statusOfKind } from "#common/rpc/grpc_status.ts";

const DEADLINE_MS = 180_000;

export type Call = readonly [method: string, request: JsonValue];
/** `code` is the name of the gRPC status. */
export type Outcome = {
  readonly method: string;
  readonly code: string;
  readonly message: string;
  readonly reply: unknown;
};

type AnyCall = (request: unknown) => Promise<unknown>;

export class CsiClient {
  readonly #channel;

  /** `target`: `unix:/path` or `ip:port`. */
  constructor(target: string) {
    this.#channel = openChannel(target);
  }

  async call(name: string, request: JsonValue = {}): Promise<Outcome> {
    const services: readonly GenService<GenServiceMethods>[] = [
      ...[Identity, Controller, Node, NodePlugin, NvmeOperations],
    ];
    for (const service of services) {
      const methods: readonly DescMethod[] = service.methods;
      const method = methods.find((one) => one.name === name);
      if (!method) continue;
      const calls: Record<string, unknown> = callsOn(this.#channel, service, {
        deadlineMs: DEADLINE_MS,
      });
      const run = calls[method.localName] as AnyCall; // one function for each method of the service
      try {
        const reply = await run(fromJson(method.input, request));
        // The reply was decoded by this very schema.
        const json = toJson(method.output, reply as Parameters<typeof toJson>[1]);
        return { method: name, code: "OK", message: "", reply: json };
      } catch (error) {
        if (!(error instanceof SvcError)) throw error;
        const code = error.fields["grpc.code"] ?? status[statusOfKind(error.kind)];
        return { method: name, code: String(code), message: error.message, reply: null };
      }
    }
    throw new Error(`No CSI method is called ${name}`);
  }

  close(): void {
    this.#channel.close();
  }
}

const [, program, target, file] = process.argv;
if (program?.endsWith("csi_client.cjs") && target && file) {
  const client = new CsiClient(target);
  const calls = JSON.parse(readFileSync(file, "utf8")) as Call[]; // written by the test
  const run = async () => {
    for (const [method, request] of calls) {
      console.log(JSON.stringify(await client.call(method, request)));
    }
    client.close();
  };
  run().catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  });
}
