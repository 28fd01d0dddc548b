// A third-party OpenID Connect provider. It prints its address, then reads a line with Howdah's callback address
// and client secret. It ends with its input.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";

const server = createServer();
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
console.log(issuer);

const input = createInterface({ input: process.stdin });
const [callback, secret] = ((await input[Symbol.asyncIterator]().next()).value as string).split(" ");

// It has no types.
const library: string = "oidc-provider";
const { default: Provider } = await import(library);
const provider = new Provider(issuer, {
  clients: [{ client_id: "howdah", client_secret: secret, redirect_uris: [callback] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  cookies: { keys: ["signs cookies for as long as this test lasts"] },
  pkce: { required: () => true },
  // Every login is accepted.
  findAccount: (_: unknown, address: string) => ({
    accountId: address,
    claims: () => ({ sub: address, email: address, email_verified: true, name: "Grace Hopper" }),
  }),
});
server.on("request", provider.callback());
console.log("ready");
input.on("close", () => process.exit());
