/**
 * Who may call: JSON Web Tokens signed by the key that the operator gave.
 *
 * Invariants: only the signature counts (no claim is looked at, as published); the algorithm is the key's, never
 * the token's choice, so `none` and symmetric algorithms cannot slip in.
 * Sources: RFC 7515 (JWS), 7517 (JWK), 7518 (algorithms).
 */
import { constants, createPublicKey, type KeyObject, verify } from "node:crypto";
import { Type } from "typebox";
import { SvcError } from "#common/errors.ts";
import { parserOf } from "#common/rpc/json_api.ts";

const JwkSchema = Type.Object({
  kty: Type.Optional(Type.Literal("RSA")),
  alg: Type.Enum(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
  n: Type.String({ minLength: 1 }),
  e: Type.String({ minLength: 1 }),
});
const parseJwk = parserOf(JwkSchema, "the JSON web key", "invalid-argument");
const parseHeader = parserOf(
  Type.Object({ alg: Type.String() }),
  "the header of the token",
  "unauthorized",
);

export type Verifier = {
  /** @throws {SvcError} `unauthorized`, saying what is wrong with the Authorization header */
  verify(authorization: string | undefined): void;
};

/** Lets everyone in: `--no-auth`. */
export const openVerifier: Verifier = { verify() {} };

function refuse(reason: string): never {
  throw new SvcError("unauthorized", reason);
}

function decodeJson(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
  } catch {
    return refuse("Invalid token: its header is not JSON");
  }
}

/**
 * A verifier for tokens signed with the private half of `jwkText` (the JSON of an RSA public JWK).
 * @throws {SvcError} `invalid-argument` when the text is no such key
 */
export function makeVerifier(jwkText: string): Verifier {
  let key: KeyObject;
  let alg: string;
  try {
    const jwk = parseJwk(JSON.parse(jwkText));
    alg = jwk.alg;
    key = createPublicKey({ key: { kty: "RSA", n: jwk.n, e: jwk.e }, format: "jwk" });
  } catch (error) {
    throw new SvcError("invalid-argument", "Cannot use the JSON web key of --jwk", {
      cause: error,
    });
  }
  const padding = alg.startsWith("PS")
    ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : { padding: constants.RSA_PKCS1_PADDING };
  const digest = `sha${alg.slice(2)}`;
  return {
    verify(authorization) {
      if (authorization === undefined) refuse("Missing bearer token");
      const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
      if (token === undefined)
        refuse("Missing bearer token: the Authorization header has no token");
      const parts = token.split(".");
      const [header, payload, signature] = parts;
      if (parts.length !== 3 || !header || payload === undefined || !signature) {
        refuse("Invalid token: want three parts");
      }
      if (parseHeader(decodeJson(header)).alg !== alg) {
        refuse(`Invalid token: it is not signed with ${alg}`);
      }
      const signed = Buffer.from(`${header}.${payload}`, "ascii");
      const bytes = Buffer.from(signature, "base64url");
      if (!verify(digest, signed, { key, ...padding }, bytes)) {
        refuse("Invalid token: the signature does not match");
      }
    },
  };
}
