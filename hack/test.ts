/** `npm test`: every step of hack/ci.ts; arguments narrow it to named steps. */
import { runSteps, steps } from "./ci.ts";

const wanted = process.argv.slice(2);
const ok = await runSteps(wanted.length > 0 ? wanted : steps.map((step) => step.name));
process.exitCode = ok ? 0 : 1;
