/**
 * A host that behaves, in a process of its own: writes and reads a volume until its standard input ends, then says on
 * its output how many I/Os it did and how long the worst took. Arguments: the target's URI, the host's NQN.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { NvmeHost, parseTarget } from "./nvme_host.ts";

const [uri = "", hostNqn = ""] = process.argv.slice(2);
const target = parseTarget(uri);
const host = await NvmeHost.open(target, { ...target, hostNqn, hostId: randomBytes(16) });
const queue = await host.addQueue();
let stop = false;
process.stdin.resume();
void once(process.stdin, "end").then(() => {
  stop = true;
});
console.log("ready");
let worstMs = 0;
let count = 0;
for (; !stop; count++) {
  const data = randomBytes(count % 4 === 0 ? 131_072 : 4096);
  const lba = (count % 200) * 256;
  const begun = performance.now();
  await queue.write(lba, data);
  if (!(await queue.read(lba, data.length)).equals(data))
    throw new Error("read other than written");
  worstMs = Math.max(worstMs, performance.now() - begun);
  if (count % 100 === 0) await host.admin.keepAlive();
  await sleep(5);
}
console.log(JSON.stringify({ count, worstMs }));
host.close();
process.exit(0);
