/**
 * DNS messages on the wire: parses a query with one question and writes its answer.
 * Invariant: bytes that are no query give null or a FORMERR answer; nothing read past the message.
 * Source: RFC 1035 sections 4.1 and 4.2, RFC 2782 (SRV).
 */
import type { Answer, DnsRecord } from "./dns_records.ts";

const HEADER_BYTES = 12;
const TYPES: Readonly<Record<number, string>> = {
  1: "A",
  5: "CNAME",
  12: "PTR",
  28: "AAAA",
  33: "SRV",
};
const TYPE_CODES = { A: 1, CNAME: 5, PTR: 12, SRV: 33 } as const;
const CLASS_IN = 1;
const CODE_OK = 0;
const CODE_FORMAT_ERROR = 1;
const CODE_NAME_ERROR = 3;
const CODE_NOT_IMPLEMENTED = 4;
const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const OPCODE_MASK = 0x7800;
/** Short, so that a name follows its pod. */
const TTL_SECONDS = 2;
/** Without EDNS a resolver takes no more over UDP; it asks again over TCP. */
export const UDP_BYTES_MAX = 512;

export interface Question {
  readonly name: string;
  /** `A`, `SRV`, ...; the number as text when unknown. */
  readonly type: string;
  /** The question's bytes, repeated in the answer. */
  readonly bytes: Buffer;
}

function readName(message: Buffer, start: number): { name: string; end: number } | null {
  const labels: string[] = [];
  let at = start;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63) return null; // no compression in a question
    at += 1;
    if (length === 0) return { name: labels.join("."), end: at };
    if (at + length > message.length) return null;
    labels.push(message.toString("latin1", at, at + length));
    at += length;
  }
}

/** The question of a query; null when there is not exactly one that can be read. */
export function parseQuestion(message: Buffer): Question | null {
  if (message.length < HEADER_BYTES || message.readUInt16BE(4) !== 1) return null;
  const name = readName(message, HEADER_BYTES);
  if (name === null || name.end + 4 > message.length) return null;
  const code = message.readUInt16BE(name.end);
  return {
    name: name.name,
    type: TYPES[code] ?? String(code),
    bytes: message.subarray(HEADER_BYTES, name.end + 4),
  };
}

function encodeName(name: string): Buffer {
  const parts = name.split(".").filter((label) => label !== "");
  const encoded = parts.map((label) =>
    Buffer.concat([Buffer.from([Math.min(label.length, 63)]), Buffer.from(label.slice(0, 63))]),
  );
  return Buffer.concat([...encoded, Buffer.from([0])]);
}

function encodeData(record: DnsRecord): Buffer {
  switch (record.type) {
    case "A":
      return Buffer.from(record.address.split(".").map(Number));
    case "CNAME":
    case "PTR":
      return encodeName(record.target);
    case "SRV": {
      const fixed = Buffer.alloc(6);
      fixed.writeUInt16BE(10, 2); // priority 0, weight 10
      fixed.writeUInt16BE(record.port, 4);
      return Buffer.concat([fixed, encodeName(record.target)]);
    }
  }
}

function encodeRecord(record: DnsRecord & { name: string }): Buffer {
  const data = encodeData(record);
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(TYPE_CODES[record.type], 0);
  fixed.writeUInt16BE(CLASS_IN, 2);
  fixed.writeUInt32BE(TTL_SECONDS, 4);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([encodeName(record.name), fixed, data]);
}

/** The answer to a message; null when it cannot be a query at all. */
export function respond(
  message: Buffer,
  lookUp: (name: string, type: string) => Answer,
  bytesMax: number,
): Buffer | null {
  if (message.length < HEADER_BYTES) return null;
  const asked = message.readUInt16BE(2);
  if ((asked & FLAG_RESPONSE) !== 0) return null;
  const question = parseQuestion(message);
  let code = CODE_OK;
  let records: Buffer[] = [];
  if ((asked & OPCODE_MASK) !== 0) code = CODE_NOT_IMPLEMENTED;
  else if (question === null) code = CODE_FORMAT_ERROR;
  else {
    const answer = lookUp(question.name, question.type);
    if (answer.found === "records") records = answer.records.map(encodeRecord);
    if (answer.found === "nothing") code = CODE_NAME_ERROR;
  }
  const asking = question?.bytes ?? Buffer.alloc(0);
  const whole = HEADER_BYTES + asking.length + records.reduce((sum, r) => sum + r.length, 0);
  const truncated = whole > bytesMax;
  if (truncated) records = [];
  const header = Buffer.alloc(HEADER_BYTES);
  message.copy(header, 0, 0, 2); // the query's id
  const flags =
    FLAG_RESPONSE |
    FLAG_AUTHORITATIVE |
    FLAG_RECURSION_AVAILABLE |
    (truncated ? FLAG_TRUNCATED : 0);
  header.writeUInt16BE(flags | (asked & (OPCODE_MASK | FLAG_RECURSION_DESIRED)) | code, 2);
  header.writeUInt16BE(question === null ? 0 : 1, 4);
  header.writeUInt16BE(records.length, 6);
  return Buffer.concat([header, asking, ...records]);
}
