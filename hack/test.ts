/** `npm test`: the steps of hack/ci.ts; arguments narrow it to named steps. */
import { commandLine, EXIT_USAGE } from "#common/command_line.ts";
import { runSteps, steps, wrongStep } from "./ci.ts";

const { positionals } = commandLine({
  usage: [
    "Usage: npm test [-- STEP...]     all steps, or those named:",
    ...steps.map(({ name, what }) => `  ${name.padEnd(18)} ${what}`),
  ].join("\n"),
  positionalsMax: Number.POSITIVE_INFINITY,
});
const wrong = wrongStep(positionals);
if (wrong === null) {
  process.exitCode = (await runSteps(positionals)) ? 0 : 1;
} else {
  console.error(wrong);
  process.exitCode = EXIT_USAGE;
}
