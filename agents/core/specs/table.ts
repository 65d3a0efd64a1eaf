/**
 * A table of specs of one kind: the memory of the store, and the discipline of changing it.
 *
 * Why: a crash may come between any two steps. So an operation is written down (begin), carried out, and
 * written off (commit or cancel); what a crash left in between is resolved by reconcile/dirty.ts.
 *
 * Invariants:
 * - Memory follows the store: a change shows in memory only after the store took it. The exception: when writing
 *   an operation off fails, its result is kept in memory as dirty until flush() gets it written.
 * - What failed to be written without an answer is written over by settle(), so that no later agent finds it.
 * - At most one operation is in flight per spec.
 * - Nothing is written that could not be read back: an unreadable spec would stop the next start.
 * - The index by owner says what a look at every spec would.
 * - Callers hold the resource's guard around begin .. commit.
 */
import type { TSchema } from "typebox";
import { BugError, check } from "#common/check.ts";
import { errorMessage, isKind, SvcError, toSvcError } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import type { SpecKind } from "#common/store/keys.ts";
import type { StoreOp } from "#common/store/mod.ts";
import {
  checkStorable,
  decodeStored,
  type OpRecord,
  type SpecPhase,
} from "#common/types/stored.ts";

export type SpecCodec<Spec, Op> = {
  readonly kind: SpecKind;
  /** In messages: "volume", "pool". */
  readonly noun: string;
  readonly schema: TSchema;
  readonly idOf: (spec: Spec) => string;
  /** What it is looked up by besides its id; null: by nothing. */
  readonly ownerOf: (spec: Spec) => string | null;
  readonly phaseOf: (spec: Spec) => SpecPhase;
  readonly withPhase: (spec: Spec, phase: "Creating" | "Deleting") => Spec;
  readonly commit: (spec: Spec, operation: Op) => Spec | null;
};

export type SpecWriter = {
  readonly write: (ops: readonly StoreOp[]) => Promise<void>;
  readonly keyOf: (kind: SpecKind, id: string) => string;
  /** Told of every change that the store took: what waits may go on. */
  readonly onChange: (kind: SpecKind, id: string) => void;
};

export class SpecTable<Spec extends { operation: OpRecord<Op> | null }, Op> {
  readonly #codec: SpecCodec<Spec, Op>;
  readonly #writer: SpecWriter;
  readonly #specs = new Map<string, Spec>();
  readonly #byOwner = new Map<string, Set<string>>();
  readonly #unsure = new Set<string>();

  constructor(codec: SpecCodec<Spec, Op>, writer: SpecWriter) {
    this.#codec = codec;
    this.#writer = writer;
  }

  get noun(): string {
    return this.#codec.noun;
  }

  find(id: string): Spec | undefined {
    return this.#specs.get(id);
  }

  /** @throws {SvcError} `not-found` */
  get(id: string): Spec {
    const spec = this.#specs.get(id);
    if (!spec) throw new SvcError("not-found", `${this.#codec.noun} ${id} not found`);
    return spec;
  }

  all(): Spec[] {
    return [...this.#specs.values()];
  }

  /** Those of one owner, without a look at all the others. */
  ownedBy(owner: string): Spec[] {
    return [...(this.#byOwner.get(owner) ?? [])].map((id) => this.get(id));
  }

  phase(spec: Spec): SpecPhase {
    return this.#codec.phaseOf(spec);
  }

  /** Takes over what the store holds, at start. */
  load(entries: readonly { readonly key: string; readonly value: string }[]): void {
    for (const { key, value } of entries) {
      const spec = decodeStored(this.#codec.schema, value, key) as Spec; // the codec's own schema
      this.#keep(spec);
    }
  }

  /** An operation that ended without being written off, or one that a crash interrupted. */
  isDirty(spec: Spec): boolean {
    return spec.operation !== null;
  }

  /**
   * Puts a new spec, with what is about to be done to it.
   * @throws {SvcError} `already-exists`, `invalid-argument`, `failed-persist`
   */
  async insert(spec: Spec): Promise<Spec> {
    const id = this.#codec.idOf(spec);
    if (this.#specs.has(id)) {
      throw new SvcError("already-exists", `${this.#codec.noun} ${id} already exists`);
    }
    return await this.#put(spec);
  }

  /**
   * Writes down an operation before it is carried out. Only a Created spec takes any operation; one that is
   * being deleted takes `allowDeleting` ones.
   * @throws {SvcError} `not-found`, `conflict`, `failed-persist`, `deleting`, `failed-precondition`
   */
  async begin(
    id: string,
    operation: Op,
    { allow = ["Created"] }: { readonly allow?: readonly SpecPhase[] } = {},
  ): Promise<Spec> {
    const spec = this.get(id);
    this.#checkIdle(spec, id);
    const phase = this.#codec.phaseOf(spec);
    if (!allow.includes(phase)) {
      if (phase === "Creating") {
        throw new SvcError(
          "failed-precondition",
          `${this.#codec.noun} ${id} is still being created`,
        );
      }
      throw new SvcError("deleting", `${this.#codec.noun} ${id} is being deleted`);
    }
    return await this.#put({ ...spec, operation: { operation, result: null } });
  }

  /** Like begin(), and marks the spec as going away: from here on only forward. */
  async beginDestroy(id: string, operation: Op): Promise<Spec> {
    const spec = this.get(id);
    this.#checkIdle(spec, id);
    const leaving = this.#codec.withPhase(spec, "Deleting");
    return await this.#put({ ...leaving, operation: { operation, result: null } });
  }

  /** Nothing more is known of an operation but that it must be undone: only destroying it is left. */
  async condemn(id: string): Promise<Spec> {
    return await this.#put({
      ...this.#codec.withPhase(this.get(id), "Deleting"),
      operation: null,
    });
  }

  /**
   * The whole discipline for an operation with one step: written down, carried out, written off.
   * A failed step leaves the spec as it was; if it `destroys`, it stays Deleting and goes later, and the error says so.
   */
  async carryOut<T>(
    id: string,
    operation: Op,
    work: () => Promise<T>,
    options: { readonly destroys?: boolean; readonly allow?: readonly SpecPhase[] } = {},
  ): Promise<T> {
    if (options.destroys) await this.beginDestroy(id, operation);
    else await this.begin(id, operation, options.allow ? { allow: options.allow } : {});
    let result: T;
    try {
      result = await work();
    } catch (error) {
      await this.cancel(id).catch(() => {}); // kept as dirty; the first error matters
      if (!options.destroys || error instanceof BugError) throw error;
      // "Refused" would be untrue: what is to go stays marked so, and goes later.
      throw new SvcError(
        isKind(error, "deadline-exceeded", "internal", "aborted") ? error.kind : "unavailable",
        `${this.#codec.noun} ${id} is being destroyed, which goes on by itself later: ${errorMessage(error)}`,
        { cause: error },
      );
    }
    try {
      await this.commit(id);
    } catch (error) {
      if (!isKind(error, "failed-persist")) throw error;
      throw new SvcError(
        "failed-persist",
        `${error.message}: what was asked for was carried out, and is written down once the store answers`,
        { cause: error.cause },
      );
    }
    return result;
  }

  /** The operation was carried out: applies it. @throws {SvcError} `failed-persist` (kept as dirty) */
  async commit(id: string): Promise<Spec | null> {
    const spec = this.get(id);
    check(spec.operation !== null, "commit() ends an operation that was begun");
    return await this.#end(spec, { ...spec.operation, result: true });
  }

  /** The operation was not carried out: forgets it. @throws {SvcError} `failed-persist` (kept as dirty) */
  async cancel(id: string): Promise<void> {
    const spec = this.get(id);
    check(spec.operation !== null, "cancel() ends an operation that was begun");
    await this.#end(spec, { ...spec.operation, result: false });
  }

  /** Changes a spec without an operation. @throws {SvcError} `not-found`, `failed-persist` */
  async update(id: string, change: (spec: Spec) => Spec): Promise<Spec> {
    return await this.#put(change(this.get(id)));
  }

  /** Forgets a spec altogether. @throws {SvcError} `failed-persist` */
  async remove(id: string): Promise<void> {
    if (!this.#specs.has(id)) return;
    await this.#write(id, [{ op: "delete", key: this.#key(id) }]);
    this.#drop(id);
    this.#writer.onChange(this.#codec.kind, id);
  }

  /** Specs of which the store may hold what was answered as failed: a write without an answer. */
  get unsure(): string[] {
    return [...this.#unsure];
  }

  /**
   * The store is told once more what memory has: what was answered as failed must not come true with the next agent. Callers hold
   * the resource's guard. False: an operation is under way, which writes by itself.
   */
  async settle(id: string): Promise<boolean> {
    if (!this.#unsure.has(id)) return true;
    const spec = this.#specs.get(id);
    if (spec?.operation) return false;
    if (spec) await this.#put(spec);
    else await this.#write(id, [{ op: "delete", key: this.#key(id) }]);
    return true;
  }

  /** Writes off what is known to have ended. True when the spec is clean (or gone) now. */
  async flush(id: string): Promise<boolean> {
    const spec = this.#specs.get(id);
    if (!spec?.operation) return true;
    if (spec.operation.result === null) return false;
    await this.#end(spec, spec.operation);
    return true;
  }

  #checkIdle(spec: Spec, id: string): void {
    if (spec.operation === null) return;
    const noun = this.#codec.noun;
    if (spec.operation.result === null) {
      throw new SvcError("conflict", `Cannot change ${noun} ${id}: an operation is unfinished`);
    }
    throw new SvcError("failed-persist", `Cannot change ${noun} ${id}: the store lags behind`);
  }

  async #end(spec: Spec, record: OpRecord<Op>): Promise<Spec | null> {
    const id = this.#codec.idOf(spec);
    const next: Spec | null = record.result
      ? this.#codec.commit(spec, record.operation)
      : { ...spec, operation: null };
    try {
      if (next) return await this.#put(next);
      await this.remove(id);
      return null;
    } catch (error) {
      this.#keep({ ...spec, operation: record });
      throw error;
    }
  }

  async #put(spec: Spec): Promise<Spec> {
    const id = this.#codec.idOf(spec);
    const value = encodeJson(spec);
    checkStorable(this.#codec.schema, value, `${this.#codec.noun} ${id}`);
    await this.#write(id, [{ op: "put", key: this.#key(id), value }]);
    this.#keep(spec);
    this.#writer.onChange(this.#codec.kind, id);
    return spec;
  }

  /** Into memory; with #drop() the only one that changes it. */
  #keep(spec: Spec): void {
    const id = this.#codec.idOf(spec);
    const owner = this.#codec.ownerOf(spec);
    const old = this.#specs.get(id);
    if (old && this.#codec.ownerOf(old) !== owner) this.#disown(id); // else it keeps its place
    this.#specs.set(id, spec);
    if (owner === null) return;
    const owned = this.#byOwner.get(owner) ?? new Set();
    this.#byOwner.set(owner, owned.add(id));
  }

  #drop(id: string): void {
    this.#disown(id);
    this.#specs.delete(id);
  }

  #disown(id: string): void {
    const spec = this.#specs.get(id);
    const owner = spec && this.#codec.ownerOf(spec);
    if (owner === undefined || owner === null) return;
    const owned = this.#byOwner.get(owner);
    owned?.delete(id);
    if (owned?.size === 0) this.#byOwner.delete(owner);
  }

  #key(id: string): string {
    return this.#writer.keyOf(this.#codec.kind, id);
  }

  async #write(id: string, ops: readonly StoreOp[]): Promise<void> {
    try {
      await this.#writer.write(ops);
      this.#unsure.delete(id);
    } catch (error) {
      this.#unsure.add(id);
      throw new SvcError("failed-persist", `Cannot persist ${this.#codec.noun} ${id}`, {
        cause: toSvcError(error),
      });
    }
  }
}
