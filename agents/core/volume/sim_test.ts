/**
 * agent-core in a hostile world, by seed: see testing/sim_world.ts for what is done to it and what must hold.
 *
 * SIM_SEEDS=200 SIM_STEPS=300 runs more and longer; SIM_SEED=7 replays one and prints its history when it fails.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SimWorld } from "../testing/sim_world.ts";

const count = (name: string, fallback: number): number => Number(process.env[name] ?? fallback);
const only = process.env["SIM_SEED"];
const first = only === undefined ? 1 : Number(only);
const last = only === undefined ? count("SIM_SEEDS", 6) : first;
const steps = count("SIM_STEPS", 80);

describe("agent-core in a hostile world", { timeout: 3_600_000 }, () => {
  for (let seed = first; seed <= last; seed++) {
    test(`keeps every acknowledged write and converges, seed ${seed}`, async () => {
      const world = await SimWorld.start(seed);
      try {
        await world.run(steps);
      } catch (error) {
        if (only !== undefined) process.stderr.write(`${world.history}\n`);
        const why = error instanceof Error ? error.stack : String(error);
        assert.fail(`SIM_SEED=${seed} SIM_STEPS=${steps} replays: ${why}`);
      }
    });
  }
});
