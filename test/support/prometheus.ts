/** Debian's Prometheus for tests: promtool, and a server that scrapes given addresses. */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { stringify } from "yaml";
import { freePort, until } from "../../hack/cluster/local.ts";
import type { Cleanup } from "./cluster.ts";
import { clearOnSignal } from "./interrupts.ts";
import { firstPort } from "./slot.ts";

const run = promisify(execFile);

/** @throws with what promtool said, when it is not content */
export async function promtool(args: readonly string[], input = ""): Promise<string> {
  const running = run("promtool", [...args]);
  running.child.stdin?.end(input);
  try {
    const { stdout, stderr } = await running;
    return stdout + stderr;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`promtool ${args.join(" ")} failed:\n${stdout}${stderr}`, { cause: error });
  }
}

/** Gone with the test, after whatever `end` stops there. */
export function scratchFolder(
  t: Cleanup,
  name: string,
  end: (folder: string) => Promise<unknown> = async () => {},
): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), `mayastor-${name}-`));
  t.after(async () => {
    await end(folder);
    rmSync(folder, { recursive: true, force: true });
  });
  clearOnSignal(folder);
  return folder;
}

/** One sample of an instant query; `value` of a histogram is not asked for here. */
export type Series = { readonly metric: Readonly<Record<string, string>>; readonly value: number };

type Answer = {
  readonly status: string;
  readonly error?: string;
  readonly data?: {
    readonly result: readonly {
      readonly metric: Readonly<Record<string, string>>;
      readonly value?: readonly [number, string];
    }[];
  };
};

export class Prometheus {
  readonly #url: string;

  private constructor(url: string) {
    this.#url = url;
  }

  /** Scrapes each second; ends with the test. */
  static async start(
    t: Cleanup,
    { targets, native }: { targets: readonly string[]; native: boolean },
  ): Promise<Prometheus> {
    let stop = async () => {};
    const folder = scratchFolder(t, "prometheus", () => stop());
    const config = path.join(folder, "prometheus.yml");
    writeFileSync(
      config,
      stringify({
        global: { scrape_interval: "1s", scrape_timeout: "1s" },
        scrape_configs: [{ job_name: "mayastor", static_configs: [{ targets }] }],
      }),
    );
    const port = await freePort(firstPort);
    const listen = `127.0.0.1:${port}`;
    const args = [
      `--config.file=${config}`,
      `--storage.tsdb.path=${path.join(folder, "data")}`,
      `--web.listen-address=${listen}`,
      ...(native ? ["--enable-feature=native-histograms"] : []),
    ];
    const child = spawn("prometheus", args, { stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    child.stderr.on("data", (chunk: Buffer) => {
      log += chunk.toString();
    });
    const ended = new Promise((resolve) => child.once("close", resolve));
    stop = async () => {
      child.kill("SIGTERM");
      await ended;
    };
    const server = new Prometheus(`http://${listen}`);
    await until(
      "Prometheus answers",
      async () => {
        if (child.exitCode !== null) throw new Error(`it has ended: ${log}`);
        const ready = await fetch(`${server.#url}/-/ready`).catch(() => null);
        return ready?.ok ?? false;
      },
      { seconds: 60 },
    );
    return server;
  }

  /** An instant query, now. @throws when it does not parse */
  async query(expression: string): Promise<readonly Series[]> {
    const form = new URLSearchParams({ query: expression });
    const response = await fetch(`${this.#url}/api/v1/query`, { method: "POST", body: form });
    // Documented shape of the HTTP API.
    const { status, error, data } = (await response.json()) as Answer;
    if (status !== "success") throw new Error(`Cannot query ${expression}: ${error}`);
    return (data?.result ?? []).map(({ metric, value }) => ({
      metric,
      value: value === undefined ? Number.NaN : Number(value[1]),
    }));
  }
}
