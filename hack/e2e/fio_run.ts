/**
 * A run of fio that goes on until it is told to stop, and what its output proves.
 *
 * Why: what fio has to outlive (an upgrade, a node's return) takes as long as it takes; a run of a fixed time may be
 * over before the worst of it.
 * Invariant: a run passes only when fio was still doing I/O when the stop came, and none of its I/O has failed: fio
 * itself says first that a signal ended it, which it does not after an error of its own.
 */
import assert from "node:assert/strict";

/** In the pod; whoever makes this file stops the run. It must not be there before. */
export const STOP_FILE = "/fio-stop";
/** For fio to finish what is in flight after the stop; I/O that hangs longer is a failure. */
const FINISH_SEC = 60;

/** Shell program: its arguments are the stop file and the command to run. Exit code 1 when it hangs on the stop. */
export const UNTIL_STOPPED = `
stop=$1; shift
"$@" &
fio=$!
while kill -0 "$fio" 2>/dev/null && [ ! -e "$stop" ]; do sleep 1; done
kill -TERM "$fio" 2>/dev/null
left=${FINISH_SEC}
while kill -0 "$fio" 2>/dev/null; do
  [ "$left" -gt 0 ] || { kill -KILL "$fio"; echo "I/O hangs: fio did not end in ${FINISH_SEC} s" >&2; exit 1; }
  left=$((left - 1)); sleep 1
done
exit 0`;

const STOPPED = /^\s*fio: terminating on signal 15\s*$/m;

export type FioJob = {
  readonly error: number;
  readonly read: { readonly iops: number };
  readonly write: { readonly iops: number };
};

/** The jobs of a run, from its standard output. @throws on any I/O error, wrong data, or an end before the stop */
export function judgeStopped(output: string): readonly FioJob[] {
  assert.match(output, STOPPED, `fio ended before what happened meanwhile did:\n${output}`);
  return judge(output.slice(output.indexOf("{")));
}

/** The same for a run that ends by its own time. */
export function judge(output: string): readonly FioJob[] {
  const { jobs } = JSON.parse(output) as { jobs: readonly FioJob[] }; // fio's documented output
  assert.ok(jobs.length > 0, output);
  for (const { error, write } of jobs) {
    assert.equal(error, 0, output);
    assert.ok(write.iops > 0, output);
  }
  return jobs;
}
