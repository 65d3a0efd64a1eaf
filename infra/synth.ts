/**
 * main.ts, started fast: what cdk8s.yaml runs.
 *
 * Why: main.ts imports some 900 small modules, most of them of the schema library; compiling them, and taking the types
 * out of our own, takes as long as all the rest. Node keeps what it compiled, so only a first run does that.
 * Invariants: Node compares each module's source with what it kept, so nothing stale is ever run; where nothing can be
 * kept (a read-only checkout) it compiles; it does what main.ts does, which also runs alone.
 */
import { enableCompileCache } from "node:module";
import path from "node:path";

enableCompileCache(path.join(import.meta.dirname, "../node_modules/.cache/synth"));
await import("./main.ts");
