/**
 * A throw-away self-signed certificate for `--dummy-certificates`: encryption without any proof of identity.
 *
 * Why: test and demo clusters want HTTPS without a certificate authority. The key is made at start-up and never
 * leaves the process, so there is no secret to ship; real deployments give --cert-file and --key-file.
 * Source: RFC 5280 (certificate), X.690 (DER).
 */
import { generateKeyPairSync, sign } from "node:crypto";
import type { Clock } from "#common/clock.ts";
import type { Random } from "#common/random.ts";

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OID = 0x06;
const UTF8 = 0x0c;
const UTC_TIME = 0x17;
const CONTEXT_0 = 0xa0;
const CONTEXT_3 = 0xa3;
const DNS_NAME = 0x82;
const DAY_MS = 86_400_000;
const VALID_DAYS = 825; // the longest that common clients accept

// 1.2.840.10045.4.3.2 ecdsa-with-SHA256, 2.5.4.3 common name, 2.5.29.17 subject alternative names
const ECDSA_SHA256 = Buffer.from([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
const COMMON_NAME = Buffer.from([0x55, 0x04, 0x03]);
const ALT_NAMES = Buffer.from([0x55, 0x1d, 0x11]);

/** Tag, length (short or long form), content. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const bytes: number[] = [];
  for (let rest = length; rest > 0; rest >>= 8) bytes.unshift(rest & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length, ...bytes]), content]);
}

/** YYMMDDHHMMSSZ; good until 2049, as RFC 5280 wants it. */
function utcTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return der(UTC_TIME, Buffer.from(digits.slice(2), "ascii"));
}

export type KeyAndCertificate = { readonly key: string; readonly cert: string };

/** A self-signed certificate for `name` (and localhost), valid from now on; both as PEM. */
export function selfSigned(
  name: string,
  { clock, random }: { clock: Clock; random: Random },
): KeyAndCertificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = der(SEQUENCE, der(OID, ECDSA_SHA256));
  const subject = der(
    SEQUENCE,
    der(SET, der(SEQUENCE, der(OID, COMMON_NAME), der(UTF8, Buffer.from(name, "utf8")))),
  );
  const names = [name, "localhost"].map((dns) => der(DNS_NAME, Buffer.from(dns, "ascii")));
  const extensions = der(
    CONTEXT_3,
    der(SEQUENCE, der(SEQUENCE, der(OID, ALT_NAMES), der(OCTET_STRING, der(SEQUENCE, ...names)))),
  );
  const serial = Buffer.alloc(5);
  serial.writeUInt32BE(random.uint32(), 1);
  serial[0] = 1; // positive and without leading zeros
  const fromMs = clock.now() - DAY_MS; // clocks differ
  const toBeSigned = der(
    SEQUENCE,
    der(CONTEXT_0, der(INTEGER, Buffer.from([2]))), // version 3
    der(INTEGER, serial),
    algorithm,
    subject, // issuer
    der(SEQUENCE, utcTime(fromMs), utcTime(fromMs + VALID_DAYS * DAY_MS)),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    extensions,
  );
  const signature = sign("sha256", toBeSigned, privateKey);
  const bits = der(BIT_STRING, Buffer.from([0]), signature);
  const text = der(SEQUENCE, toBeSigned, algorithm, bits).toString("base64");
  const lines = text.match(/.{1,64}/g) ?? [];
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    cert: ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n"),
  };
}
