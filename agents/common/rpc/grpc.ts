/**
 * Typed gRPC over grpc-js for the services of agents/common/proto.
 *
 * Why: generated descriptors already know every type; this is the little that joins them to grpc-js.
 * Invariants: every client call has a deadline (a silent peer would hang it for ever) and obeys an
 * AbortSignal; a handler gets a signal that is aborted when its caller is gone or the deadline has
 * passed; failures are SvcError on both sides (rpc/grpc_status.ts). Unary calls only.
 */
import { createServer, type Socket } from "node:net";
import {
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  create as makeMessage,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import {
  Client,
  type ClientOptions,
  credentials,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerOptions,
  type ServerUnaryCall,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { type Clock, systemClock } from "../clock.ts";
import { SvcError } from "../errors.ts";
import { tolerantConnection } from "./authority.ts";
import { fromGrpcFailure, toGrpcFailure } from "./grpc_status.ts";
import { type HeldCall, underWay } from "./under_way.ts";

/** Lists of thousands of replicas fit; a runaway peer does not. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** As published: HTTP/2 keep-alive each 10 s, answered within 20 s. */
const KEEPALIVE_TIME_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
/** Calls of one connection at a time; a client keeps further ones back. */
const STREAMS_MAX = 256;
/** How long close() lets running calls finish. */
const SERVER_DRAIN_MS = 5_000;

export type CallContext = {
  /** Aborted when the caller has cancelled, gone away or run out of time. */
  readonly signal: AbortSignal;
  /** Milliseconds the caller is still willing to wait; null when it set no deadline. */
  readonly remainingMs: number | null;
  readonly peer: string;
  readonly metadata: Metadata;
  /** Sent after the answer or the failure. */
  readonly trailers: Metadata;
  /** An answer of so many bytes is about to be sent. @throws {SvcError} `resource-exhausted` */
  answering(bytes: number): void;
};

export type UnaryHandler<Input extends DescMessage, Output extends DescMessage> = (
  request: MessageShape<Input>,
  context: CallContext,
) => Promise<MessageInitShape<Output>>;

export type Handlers<Methods extends GenServiceMethods> = {
  readonly [Name in keyof Methods]: UnaryHandler<Methods[Name]["input"], Methods[Name]["output"]>;
};

export type GrpcService = {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
};

function definitionOf(method: DescMethod): MethodDefinition<unknown, unknown> {
  const encode = (schema: DescMessage) => (value: unknown) =>
    // The typed handler or client above made `value` from this very schema.
    Buffer.from(toBinary(schema, value as MessageShape<DescMessage>));
  const decode = (schema: DescMessage) => (bytes: Buffer) => fromBinary(schema, bytes);
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    originalName: method.localName,
    requestStream: false,
    responseStream: false,
    requestSerialize: encode(method.input),
    requestDeserialize: decode(method.input),
    responseSerialize: encode(method.output),
    responseDeserialize: decode(method.output),
  };
}

function definitionsOf(service: GenService<GenServiceMethods>): ServiceDefinition {
  return Object.fromEntries(
    Object.values(service.method).map((method) => [method.localName, definitionOf(method)]),
  );
}

/** Runs one unary handler: context, signal, failure mapping. Also used by the JSON services. */
export function unaryCall<Request, Response>(
  handler: (request: Request, context: CallContext) => Promise<Response>,
  clock: Clock = systemClock,
): handleUnaryCall<Request, Response> {
  return (call: ServerUnaryCall<Request, Response>, callback) => {
    const gone = new AbortController();
    call.on("cancelled", () => gone.abort(new SvcError("aborted", "The caller has gone away")));
    const deadline = call.getDeadline();
    const deadlineMs = deadline instanceof Date ? deadline.getTime() : deadline;
    const trailers = new Metadata();
    let held: HeldCall;
    try {
      held = underWay.begin(call.getPeer());
    } catch (error) {
      callback(toGrpcFailure(error, trailers));
      return;
    }
    call.once("cancelled", held.end); // told also when the answer's last byte was handed on
    const context: CallContext = {
      signal: gone.signal,
      remainingMs: Number.isFinite(deadlineMs) ? Math.max(0, deadlineMs - clock.now()) : null,
      peer: call.getPeer(),
      metadata: call.metadata,
      trailers,
      answering: (bytes) => held.answering(bytes),
    };
    // An async wrapper, so that a handler that throws before its first await is handled the same.
    const run = async () => handler(call.request, context);
    run().then(
      (response) => callback(null, response, trailers),
      (error: unknown) => callback(toGrpcFailure(error, trailers)),
    );
  };
}

/** Joins a generated service to its handlers; every method needs one. */
export function makeService<Methods extends GenServiceMethods>(
  service: GenService<Methods>,
  handlers: Handlers<Methods>,
  { clock = systemClock }: { clock?: Clock } = {},
): GrpcService {
  const implementation: UntypedServiceImplementation = {};
  for (const method of Object.values<DescMethod>(service.method)) {
    // Handlers<Methods> has one entry for each method, typed by that method's own messages.
    const handler = handlers[method.localName] as UnaryHandler<DescMessage, DescMessage>;
    implementation[method.localName] = unaryCall<unknown, unknown>(
      async (request, context) =>
        makeMessage(
          method.output,
          await handler(request as MessageShape<DescMessage>, context), // decoded by method.input
        ),
      clock,
    );
  }
  return { definition: definitionsOf(service), implementation };
}

export type GrpcServer = {
  /** The port really bound (the given one, or a free one for port 0). */
  readonly port: number;
  /** Takes no more calls, lets running ones finish for a while, then cuts them. */
  close(): Promise<void>;
};

export type Tls = { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer };

function makeServer(services: readonly GrpcService[]): Server {
  const options: ServerOptions = {
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_concurrent_streams": STREAMS_MAX,
    // A peer that reads nothing any more answers no ping either: its connection and what waits for it go.
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
  };
  const server = new Server(options);
  for (const { definition, implementation } of services) {
    server.addService(definition, implementation);
  }
  return server;
}

async function drain(server: Server, clock: Clock): Promise<void> {
  const timer = new AbortController();
  const drained = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const late = clock.sleep(SERVER_DRAIN_MS, timer.signal).then(
    () => server.forceShutdown(),
    () => {}, // drained in time
  );
  await drained;
  timer.abort();
  await late;
}

/**
 * Serves `services` on `address` (`ip:port`), plaintext HTTP/2 unless `tls` is given (then mutual).
 * @throws {SvcError} `unavailable` when the address cannot be bound
 */
export async function startServer(
  address: string,
  services: readonly GrpcService[],
  { tls = null, clock = systemClock }: { tls?: Tls | null; clock?: Clock } = {},
): Promise<GrpcServer> {
  const server = makeServer(services);
  const serverCredentials = tls
    ? ServerCredentials.createSsl(tls.ca, [{ private_key: tls.key, cert_chain: tls.cert }], true)
    : ServerCredentials.createInsecure();
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, serverCredentials, (error, bound) => {
      if (!error) return resolve(bound);
      const message = `Cannot serve gRPC on ${address}: ${error.message}`;
      reject(new SvcError("unavailable", message, { cause: error }));
    });
  });
  return { port, close: () => drain(server, clock) };
}

/**
 * Serves `services` on a unix socket, also to old clients that send its path as their authority (see authority.ts).
 * The socket file goes with close().
 * @throws {SvcError} `unavailable` when the socket cannot be made
 */
export async function startSocketServer(
  file: string,
  services: readonly GrpcService[],
  { clock = systemClock }: { clock?: Clock } = {},
): Promise<Omit<GrpcServer, "port">> {
  const server = makeServer(services);
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const open = new Set<Socket>();
  const listener = createServer((socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    injector.injectConnection(tolerantConnection(socket));
  });
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error) => {
      const message = `Cannot serve gRPC on ${file}: ${error.message}`;
      reject(new SvcError("unavailable", message, { cause: error }));
    };
    listener.once("error", failed);
    listener.listen(file, () => {
      listener.off("error", failed);
      resolve();
    });
  });
  const close = async () => {
    const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
    await drain(server, clock);
    for (const socket of open) socket.destroy();
    await closed;
  };
  return { close };
}

export type CallOptions = {
  readonly signal?: AbortSignal;
  /** Instead of the client's own; milliseconds. */
  readonly deadlineMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
};

export type Calls<Methods extends GenServiceMethods> = {
  readonly [Name in keyof Methods]: (
    request: MessageInitShape<Methods[Name]["input"]>,
    options?: CallOptions,
  ) => Promise<MessageShape<Methods[Name]["output"]>>;
};

export type GrpcClient<Methods extends GenServiceMethods> = {
  readonly rpc: Calls<Methods>;
  close(): void;
};

export type ClientSettings = {
  /** Of every call that does not bring its own. */
  readonly deadlineMs: number;
  readonly tls?: Tls | null;
  readonly clock?: Clock;
};

/** `http://host:port`, `https://host:port` or `host:port` -> what grpc-js dials. */
export function grpcTarget(endpoint: string, portDefault: number): string {
  const bare = endpoint.replace(/^[a-z]+:\/\//, "").replace(/\/+$/, "");
  if (bare === "") throw new SvcError("invalid-argument", `"${endpoint}" is not an endpoint`);
  return /:\d+$/.test(bare) ? bare : `${bare}:${portDefault}`;
}

/**
 * One channel to `address`; `callsOn` with it gives several services on one connection. With `own` it shares nothing
 * with other channels to that address: it dials at once, whatever pause an earlier one is in after a failure.
 */
export function openChannel(
  address: string,
  { tls = null, own = false }: { tls?: Tls | null; own?: boolean } = {},
): Client {
  const options: ClientOptions = {
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    // A peer that came back is found within a second, not after a two-minute pause.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.enable_retries": 0,
    "grpc.use_local_subchannel_pool": own ? 1 : 0,
  };
  const channelCredentials = tls
    ? credentials.createSsl(tls.ca, tls.key, tls.cert)
    : credentials.createInsecure();
  return new Client(address, channelCredentials, options);
}

/** One unary call with a deadline and a signal; also used by the JSON clients. */
export function callUnary<Request, Response>(
  channel: Client,
  {
    definition,
    request,
    what,
    deadlineMs,
    clock,
    options,
  }: {
    definition: Pick<
      MethodDefinition<Request, Response>,
      "path" | "requestSerialize" | "responseDeserialize"
    >;
    request: Request;
    what: string;
    deadlineMs: number;
    clock: Clock;
    options: CallOptions;
  },
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    const cancelled = () =>
      new SvcError("aborted", `Cannot finish ${what}: the operation was cancelled`, {
        cause: signal?.reason,
      });
    if (signal?.aborted) return reject(cancelled());
    const metadata = new Metadata();
    for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
    const deadline = clock.now() + (options.deadlineMs ?? deadlineMs);
    const onAbort = () => call.cancel();
    const call = channel.makeUnaryRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      metadata,
      { deadline },
      (error, response) => {
        signal?.removeEventListener("abort", onAbort);
        if (signal?.aborted && error?.code === status.CANCELLED) return reject(cancelled());
        if (error) return reject(fromGrpcFailure(error, what));
        if (response === undefined) {
          return reject(new SvcError("internal", `Cannot finish ${what}: empty answer`));
        }
        resolve(response);
      },
    );
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** A service's calls over an open channel; the channel stays its opener's. */
export function callsOn<Methods extends GenServiceMethods>(
  channel: Client,
  service: GenService<Methods>,
  { deadlineMs, clock = systemClock }: ClientSettings,
): Calls<Methods> {
  const calls: Record<string, unknown> = {};
  for (const method of Object.values<DescMethod>(service.method)) {
    const definition = definitionOf(method);
    calls[method.localName] = (
      request: MessageInitShape<DescMessage>,
      options: CallOptions = {},
    ): Promise<unknown> =>
      callUnary(channel, {
        definition,
        request: makeMessage(method.input, request),
        what: `${method.name} on ${channel.getChannel().getTarget().replace(/^dns:/, "")}`,
        deadlineMs,
        clock,
        options,
      });
  }
  // Filled for every method of the service, each encoding and decoding by its own messages.
  return calls as Calls<Methods>;
}

/** A client of one service at `address` (see grpcTarget). */
export function makeClient<Methods extends GenServiceMethods>(
  service: GenService<Methods>,
  address: string,
  settings: ClientSettings,
): GrpcClient<Methods> {
  const channel = openChannel(address, settings);
  return { rpc: callsOn(channel, service, settings), close: () => channel.close() };
}
