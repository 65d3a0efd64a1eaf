/**
 * A REST server for tests: answers from a table, keeps what it was asked. Only tests import this.
 */
import { createServer, type IncomingHttpHeaders } from "node:http";

export type FakeAnswer = {
  readonly status?: number;
  readonly body: unknown;
  /** Called in place of an answer: the request stays unanswered. */
  readonly instead?: () => void;
};
export type FakeRequest = { readonly line: string; readonly headers: IncomingHttpHeaders };

export type FakeRest = {
  readonly url: string;
  /** "METHOD /path?query" of every request so far. */
  readonly requests: FakeRequest[];
  /** Answers by "METHOD /path?query"; an array is used up from the front, its last element stays. */
  readonly answers: Record<string, FakeAnswer | FakeAnswer[]>;
  close(): Promise<void>;
};

export function notFound(what: string): FakeAnswer {
  const details = `${what} not found`;
  return { status: 404, body: { details, message: details, kind: "NotFound" } };
}

export async function startFakeRest(): Promise<FakeRest> {
  const requests: FakeRequest[] = [];
  const answers: FakeRest["answers"] = {};
  const server = createServer((request, response) => {
    const line = `${request.method} ${request.url}`;
    requests.push({ line, headers: request.headers });
    const found = answers[line];
    const answer = Array.isArray(found) ? (found.length > 1 ? found.shift() : found[0]) : found;
    const { status = 200, body, instead } = answer ?? notFound(line);
    if (instead) {
      instead();
      return;
    }
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    answers,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
