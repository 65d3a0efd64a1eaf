/**
 * The cable between one agent-core and the world (store and engines): may be cut at any chosen call.
 *
 * Why: a crash is a process that stops between two calls; cutting the cable at call n, just before or just after
 * it took effect, makes every crash there is, and no call of the dead agent gets through later.
 */
import { SvcError } from "#common/errors.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import type { EngineConnector } from "../engine/client.ts";

export type Cut = { readonly call: number; readonly when: "before" | "after" };

/** Calls that change nothing are no crash points worth telling apart. */
const READS = new Set(["get", "list", "load", "probe", "leaseKeepAlive", "close", "watchPrefix"]);

export class Link {
  /** Changing calls made so far. */
  calls = 0;
  cut: Cut | null = null;
  dead = false;
  /** What happens elsewhere before a changing call is made. */
  meanwhile: (call: string, args: readonly unknown[]) => Promise<void> = async () => {};
  readonly log: string[] = [];

  /** Starts counting anew, to be cut at the given call. */
  arm(cut: Cut | null): void {
    this.calls = 0;
    this.log.length = 0;
    this.cut = cut;
  }

  store(inner: ObjectStore): ObjectStore {
    return this.#wrap(inner, "store");
  }

  connector(inner: EngineConnector): EngineConnector {
    return (options) => this.#wrap(inner(options), options.node);
  }

  #wrap<T extends object>(inner: T, name: string): T {
    return new Proxy(inner, {
      get: (target, property) => {
        const member: unknown = Reflect.get(target, property, target);
        if (typeof member !== "function") return member;
        const call = String(property);
        if (call === "close") return member.bind(target);
        return (...args: unknown[]) =>
          this.#pass(`${name} ${call}`, { read: READS.has(call), args }, () =>
            member.apply(target, args),
          );
      },
    });
  }

  async #pass(
    call: string,
    { read, args }: { readonly read: boolean; readonly args: readonly unknown[] },
    work: () => unknown,
  ): Promise<unknown> {
    const gone = () => new SvcError("unavailable", `Cannot ${call}: the agent is dead`);
    if (this.dead) throw gone();
    if (read) return await work();
    await this.meanwhile(call, args);
    this.calls += 1;
    this.log.push(call);
    const here = this.cut?.call === this.calls;
    if (here) this.dead = true;
    if (here && this.cut?.when === "before") throw gone();
    const result = await work();
    if (this.dead) throw gone();
    return result;
  }
}
