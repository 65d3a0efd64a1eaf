/**
 * What the engines in memory store: a few blocks per replica, and who may write them.
 *
 * Why: "no acknowledged write is lost" can only be checked against data.
 * Invariants: a replica's blocks live as long as the replica; a reservation fences writes that come over the network,
 * not those of a nexus on the replica's own node.
 */
export const BLOCKS = 4;

export class FakeData {
  readonly #blocks = new Map<string, number[]>();
  readonly #holders = new Map<string, string>();
  /** Told just before a replica's blocks go. */
  onDestroy: (replica: string) => void = () => {};

  create(replica: string): void {
    this.#blocks.set(
      replica,
      Array.from({ length: BLOCKS }, () => 0),
    );
  }

  destroy(replica: string): void {
    this.onDestroy(replica);
    this.#blocks.delete(replica);
    this.#holders.delete(replica);
  }

  replicas(): string[] {
    return [...this.#blocks.keys()];
  }

  read(replica: string): readonly number[] {
    return this.#blocks.get(replica) ?? [];
  }

  write(replica: string, block: number, value: number): void {
    const blocks = this.#blocks.get(replica);
    if (blocks) blocks[block] = value;
  }

  /** Copies all blocks, or just those given. */
  copy(from: string, to: string, only: ReadonlySet<number> | null): void {
    for (const [block, value] of this.read(from).entries()) {
      if (only === null || only.has(block)) this.write(to, block, value);
    }
  }

  reserve(replica: string, nexus: string): void {
    this.#holders.set(replica, nexus);
  }

  admits(replica: string, nexus: string): boolean {
    return (this.#holders.get(replica) ?? nexus) === nexus;
  }
}
