/** `npm test`: the steps of hack/ci.ts; arguments narrow it to named steps. */
import { runSteps } from "./ci.ts";

process.exitCode = (await runSteps(process.argv.slice(2))) ? 0 : 1;
