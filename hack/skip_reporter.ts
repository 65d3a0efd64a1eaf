/**
 * Reporter of node:test that writes one JSON line for each test that was skipped, and nothing else.
 * Why: a step's result must name what it left out; the reporter for people says that among thousands of lines.
 */
import type { TestEvent } from "node:test/reporters";

export default async function* skips(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    if (event.type !== "test:pass" && event.type !== "test:fail") continue;
    const { name, skip } = event.data;
    if (skip === undefined || skip === false) continue;
    const reason = typeof skip === "string" && skip !== "" ? skip : "no reason given";
    yield `${JSON.stringify({ name, reason })}\n`;
  }
}
