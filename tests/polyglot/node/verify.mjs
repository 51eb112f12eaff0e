// Verifies a webhook with the public library of Standard Webhooks, and its `v1a` signature with Node's own crypto.
//
// Reads {secret, public_key, headers, body} from standard input; prints `v1` and `v1a` for what holds.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, public_key, headers, body } = JSON.parse(readFileSync(0, "utf8"));

new Webhook(secret).verify(body, headers);
console.log("v1");

const found = headers["webhook-signature"].split(" ").find((signature) => signature.startsWith("v1a,"));
if (found !== undefined) {
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: public_key }, format: "jwk" });
  if (verify(null, signed, key, Buffer.from(found.slice(4), "base64"))) console.log("v1a");
}
