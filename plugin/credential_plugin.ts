/**
 * Credential plugins: programs that a kubeconfig names to get a token or a certificate (`users[].user.exec`).
 *
 * Invariants: a plugin gets no terminal to ask on, and shows its own words on stderr; it ends with an interrupt, and
 * never runs longer than its limit.
 * Source: Kubernetes documentation, "client authentication (v1)".
 */
import { spawn } from "node:child_process";
import { isAbsolute, join } from "node:path";
import { Type } from "typebox";
import Value from "typebox/value";
import { type Clock, deadlineSignal } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";

const text = Type.Optional(Type.Union([Type.String(), Type.Null()]));
export const ExecSchema = Type.Object({
  apiVersion: text,
  command: Type.String({ minLength: 1 }),
  args: Type.Optional(Type.Union([Type.Array(Type.String()), Type.Null()])),
  env: Type.Optional(
    Type.Union([
      Type.Array(Type.Object({ name: Type.String(), value: Type.String() })),
      Type.Null(),
    ]),
  ),
  interactiveMode: text,
  provideClusterInfo: Type.Optional(Type.Boolean()),
});
const CredentialSchema = Type.Object({
  status: Type.Object({
    token: Type.Optional(Type.String()),
    clientCertificateData: Type.Optional(Type.String()),
    clientKeyData: Type.Optional(Type.String()),
  }),
});

export type Exec = Type.Static<typeof ExecSchema>;
export type Credential = Type.Static<typeof CredentialSchema>["status"];

/** What a plugin runs with; `signal` ends it. */
export type PluginContext = {
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
};

/** A person may have to log in on another device meanwhile; a longer --timeout counts too. */
const PLUGIN_MS = 5 * 60 * 1_000;
const OUTPUT_CHARS_MAX = 1024 * 1024;
const API_VERSION = "client.authentication.k8s.io/v1";

/** The program's output. Its input is empty, its stderr is ours. */
function output(
  command: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; signal: AbortSignal },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "inherit"] });
    const fail = (error: Error) => {
      child.kill();
      child.unref(); // neither it nor what it started keeps us
      child.stdout.destroy();
      reject(error);
    };
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      said += chunk;
      if (said.length > OUTPUT_CHARS_MAX) fail(new Error("it prints too much"));
    });
    child.once("error", fail);
    child.once("close", (code, name) => {
      if (code === 0) resolve(said);
      else fail(new Error(code === null ? `ended by ${name}` : `exited with ${code}`));
    });
  });
}

/**
 * Runs a plugin and takes the credential it prints.
 * `folder` is the kubeconfig's: a command with a slash is relative to it. `cluster` is what the plugin may be told.
 * @throws saying what failed
 */
export async function runCredentialPlugin(
  exec: Exec,
  { folder, cluster }: { folder: string; cluster: () => object },
  { env, clock, timeoutMs, signal }: PluginContext,
): Promise<Credential> {
  const { command } = exec;
  if (exec.interactiveMode === "Always") {
    throw new Error(`credential plugin ${command}: interactiveMode Always is not supported`);
  }
  const info = {
    apiVersion: exec.apiVersion ?? API_VERSION,
    kind: "ExecCredential",
    spec: { interactive: false, ...(exec.provideClusterInfo ? { cluster: cluster() } : {}) },
  };
  const extra = Object.fromEntries((exec.env ?? []).map(({ name, value }) => [name, value]));
  const program = /[/\\]/.test(command) && !isAbsolute(command) ? join(folder, command) : command;
  const limitMs = Math.max(timeoutMs, PLUGIN_MS);
  const deadline = deadlineSignal(clock, limitMs, signal);
  let said: string;
  try {
    said = await output(program, exec.args ?? [], {
      env: { ...env, KUBERNETES_EXEC_INFO: JSON.stringify(info), ...extra },
      signal: deadline.signal,
    });
  } catch (error) {
    const reason = signal.aborted
      ? "interrupted"
      : deadline.signal.aborted
        ? `not done within ${limitMs / 1_000} s`
        : errorMessage(error);
    throw new Error(`credential plugin ${command} failed: ${reason}`);
  } finally {
    deadline.clear();
  }
  let answer: unknown;
  try {
    answer = JSON.parse(said);
  } catch {
    throw new Error(`answer of ${command}: not JSON`);
  }
  if (Value.Check(CredentialSchema, answer)) return answer.status;
  const [first] = Value.Errors(CredentialSchema, answer);
  throw new Error(`answer of ${command}: ${first?.instancePath || "/"} ${first?.message ?? ""}`);
}
