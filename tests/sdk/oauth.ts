// OAuth with third-party clients: the official SDK with its own sign-in, an independent client library with
// strict checks, and Swagger UI's button. A browser signs in and consents.
//
// HOWDAH_URL is the server's address; ada@example.com has the password HOWDAH_PASSWORD and one workspace.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { createManagementApiSdk, type Tokens, type TokenStorage } from "@prisma/management-api-sdk";
import * as resource from "oauth4webapi";
import * as client from "openid-client";
import type { Page } from "playwright-core";

import { check, launch, open, root } from "./browser.js";
import { done, required } from "./program.js";

/** The redirect URI of this program's applications. */
const redirects: string[] = [];

const COMMAND_LINE = "cmm3lndn701oo0uefvxzo0ivw";

await done("applications that act for somebody", async () => {
  const browser = await launch();
  try {
    const { page, complaints } = await open(browser, null);
    await anApplicationThatAsksForNonsense((await open(browser, null)).page);
    await theOfficialSdk(page);
    await anIndependentLibrary(page);
    await theApiPages(page);
    // The only allowed requests to another host: redirects to the applications.
    assert.deepEqual(complaints.filter((one) => !redirects.some((redirect) => one.startsWith(`${redirect}?`))), []);
  } finally {
    await browser.close();
  }
});

/** An application on this machine that waits for the redirect. */
async function waitForReturn(): Promise<{ redirect: string; returned: Promise<string>; close: () => void }> {
  let come: (address: string) => void;
  const returned = new Promise<string>((resolve) => (come = resolve));
  const server = createServer((request, response) => {
    const address = `${redirect}${(request.url ?? "").replace("/auth/callback", "")}`;
    // Browsers also request an icon.
    if (request.url?.startsWith("/auth/callback")) come(address);
    response.setHeader("content-type", "text/html").end("<!doctype html><title>Done</title><link rel=icon href=data:,>");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const redirect = `http://127.0.0.1:${(server.address() as AddressInfo).port}/auth/callback`;
  redirects.push(redirect);
  return { redirect, returned, close: () => server.close() };
}

async function signIn(page: Page): Promise<void> {
  await page.locator("input[name=email]").fill("ada@example.com");
  await page.locator("input[name=password]").fill(required("HOWDAH_PASSWORD"));
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Errors of the request are reported to the application, even if a sign-in is needed first. */
async function anApplicationThatAsksForNonsense(page: Page): Promise<void> {
  const { redirect, returned, close } = await waitForReturn();
  const query = new URLSearchParams({ client_id: COMMAND_LINE, redirect_uri: redirect, response_type: "code", scope: "foo", state: "mine" });
  await page.goto(`${root}/authorize?${query.toString()}`);
  await signIn(page);
  await page.waitForURL(`${redirect}?**`);
  const back = new URL(await returned);
  close();
  assert.deepEqual([back.searchParams.get("error"), back.searchParams.get("state")], ["invalid_scope", "mine"]);
}

async function theOfficialSdk(page: Page): Promise<void> {
  const { redirect, returned, close } = await waitForReturn();
  let kept: Tokens | null = null;
  let renewals = 0;
  const tokenStorage: TokenStorage = {
    getTokens: () => Promise.resolve(kept),
    setTokens: (tokens) => {
      renewals += 1;
      kept = tokens;
      return Promise.resolve();
    },
    clearTokens: () => {
      kept = null;
      return Promise.resolve();
    },
  };
  const sdk = createManagementApiSdk({
    clientId: COMMAND_LINE,
    redirectUri: redirect,
    tokenStorage,
    apiBaseUrl: root,
    authBaseUrl: root,
  });
  const login = await sdk.getLoginUrl({ scope: "workspace:admin offline_access", additionalParams: { utm_source: "test" } });
  await page.goto(login.url);
  await signIn(page);
  await page.getByRole("heading", { name: "wants access to your account" }).waitFor();
  await check(page, "the page of consent");
  await page.setViewportSize({ width: 390, height: 800 });
  await check(page, "the page of consent on a phone");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.getByRole("button", { name: "Allow", exact: true }).click();
  await sdk.handleCallback({ callbackUrl: await returned, verifier: login.verifier, expectedState: login.state });
  close();

  const first = kept as Tokens | null;
  assert(first?.refreshToken);
  const { data } = await sdk.client.GET("/v1/workspaces");
  assert.equal(data?.data[0]?.id.replace("wksp_", ""), first.workspaceId);

  // An expired access token: of five concurrent requests one refreshes it, and all succeed.
  renewals = 0;
  kept = { ...first, accessToken: first.accessToken.slice(0, -8) + "AAAAAAAA" };
  const answers = await Promise.all([1, 2, 3, 4, 5].map(() => sdk.client.GET("/v1/me")));
  for (const { data: me } of answers) assert.equal(me?.data.user?.email, "ada@example.com");
  assert.equal(renewals, 1);
  assert.notEqual((kept as Tokens).refreshToken, first.refreshToken);

  // Revoking ends the session for good.
  await page.goto(`${root}/console`);
  await page.getByLabel("Console", { exact: true }).getByRole("link", { name: "Integrations" }).click();
  const row = page.getByRole("row", { name: "Command line" });
  await row.getByRole("link", { name: "Revoke" }).click();
  await page.getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("status").filter({ hasText: "revoked" }).waitFor();
  const refused = await sdk.client.GET("/v1/me").then(
    (answer) => answer.response.status,
    (error: unknown) => (error as { refreshTokenInvalid?: boolean }).refreshTokenInvalid === true ? 401 : String(error),
  );
  assert.equal(refused, 401);
  await sdk.logout();
  assert.equal(kept, null);
}

async function anIndependentLibrary(page: Page): Promise<void> {
  const { redirect, returned, close } = await waitForReturn();
  const discovery = { algorithm: "oauth2" as const, execute: [client.allowInsecureRequests] };
  const metadata = { redirect_uris: [redirect], client_name: "Library", token_endpoint_auth_method: "client_secret_basic" };
  const config = await client.dynamicClientRegistration(new URL(root), metadata, client.ClientSecretBasic(), discovery);
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const address = client.buildAuthorizationUrl(config, {
    redirect_uri: redirect,
    scope: "workspace:read offline_access",
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
  });
  await page.goto(address.href);
  await page.getByText("registered itself").waitFor();
  await check(page, "consent for an application that registered itself");
  await page.getByRole("button", { name: "Allow", exact: true }).click();
  const back = new URL(await returned);
  close();
  const tokens = await client.authorizationCodeGrant(config, back, { pkceCodeVerifier: verifier, expectedState: state });
  const renewed = await client.refreshTokenGrant(config, tokens.refresh_token ?? "");
  const looked = await client.tokenIntrospection(config, renewed.access_token);
  assert.equal(looked.active, true);
  assert.equal(looked["username"], "ada@example.com");

  // As a resource server would check the token: signature, type and every claim of RFC 9068.
  const insecure = { [resource.allowInsecureRequests]: true };
  const request = new Request(`${root}/v1/me`, { headers: { authorization: `Bearer ${renewed.access_token}` } });
  const claims = await resource.validateJwtAccessToken(config.serverMetadata() as resource.AuthorizationServer, request, root, insecure);
  assert.equal(claims["client_id"], config.clientMetadata().client_id);
  assert.equal(claims.scope, "workspace:read offline_access");

  const protectedBy = await resource.resourceDiscoveryRequest(new URL(root), insecure);
  const described = await resource.processResourceDiscoveryResponse(new URL(root), protectedBy);
  assert.deepEqual(described.authorization_servers, [root]);

  await client.tokenRevocation(config, renewed.refresh_token ?? "");
  const after = await fetch(request);
  assert.equal(after.status, 401);
  assert.match(after.headers.get("www-authenticate") ?? "", /resource_metadata=/);
}

/** Swagger UI's Authorize button: consent in a popup, then a call with the token. */
async function theApiPages(page: Page): Promise<void> {
  await page.goto(`${root}/docs`);
  await page.click(".scheme-container .authorize");
  const box = page.locator(".auth-container", { hasText: "authorizationCode" });
  for (const scope of ["workspace:admin", "offline_access"]) {
    assert(await box.locator(`input[data-value="${scope}"]`).isChecked(), `${scope} is chosen from the start`);
  }
  const [consent] = await Promise.all([page.waitForEvent("popup"), box.locator("button.authorize").click()]);
  await consent.getByRole("heading", { name: "API pages wants access to your account" }).waitFor();
  await Promise.all([consent.waitForEvent("close"), consent.getByRole("button", { name: "Allow", exact: true }).click()]);
  await box.getByText("Authorized").first().waitFor();
  await page.locator(".auth-container .btn-done").first().click();
  const me = page.locator(".opblock", { has: page.locator('[data-path="/v1/me"]') });
  await me.locator(".opblock-summary-control").click();
  await me.locator(".try-out__btn").click();
  await me.locator(".execute").click();
  const answer = me.locator(".live-responses-table .response");
  assert.match(await answer.locator(".response-col_status").innerText(), /^200/);
  assert.match(await answer.locator(".response-col_description").innerText(), /ada@example.com/);
}
