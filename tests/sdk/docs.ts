// The interactive pages in a browser, as somebody with a token uses them: they load, the token is
// pasted, an operation is tried. Nothing is loaded from elsewhere, and the token is not kept.
//
// HOWDAH_URL is the API's address, HOWDAH_TOKEN the token.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";

import { chromium, type Browser, type Page } from "playwright-core";

import { done, required } from "./program.js";

const root = `${required("HOWDAH_URL")}/`;
const token = required("HOWDAH_TOKEN");

const installed = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env["CHROMIUM"] ?? installed.find((path) => existsSync(path));
assert(executablePath, `no browser at ${installed.join(", ")}; script/bootstrap --test installs one`);

await done("the interactive pages", async () => {
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];
  const browser = await chromium.launch({ executablePath, args: [...quiet, "--disable-gpu", "--no-first-run"] });
  try {
    await usePage(browser, "docs");
    await usePage(browser, "v1/swagger-editor");
  } finally {
    await browser.close();
  }
});

async function usePage(browser: Browser, path: string): Promise<void> {
  const { page, complaints } = await open(browser, path);
  assert.equal(await page.title(), "Howdah Management API");
  const document = (await (await page.request.get(`${root}v1/doc`)).json()) as { paths: Record<string, object> };
  const declared = Object.values(document.paths).reduce((sum, item) => sum + Object.keys(item).length, 0);
  assert.equal(await page.locator(".opblock").count(), declared, "every operation of the document is on the page");

  const icon = await page.locator("link[rel=icon]").getAttribute("href");
  assert.equal((await page.request.get(new URL(icon ?? "", page.url()).href)).status(), 200, "there is an icon");

  await page.click(".scheme-container .authorize");
  await page.fill(".auth-container input", token);
  await page.click(".auth-container .authorize");
  await page.click(".auth-container .btn-done");
  await page.waitForSelector(".scheme-container .authorize.locked");

  const me = page.locator(".opblock", { has: page.locator('[data-path="/v1/me"]') });
  await me.locator(".opblock-summary-control").click();
  await me.locator(".try-out__btn").click();
  await me.locator(".execute").click();
  const answer = me.locator(".live-responses-table .response");
  assert.match(await answer.locator(".response-col_status").innerText(), /^200/);
  assert.match(await answer.locator(".response-col_description").innerText(), /service_token/);

  const kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])");
  assert(!String(kept).includes(token), "the token is not kept in the browser");

  await comeBackFromSignIn(page);

  await page.setViewportSize({ width: 360, height: 740 });
  const beyond = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth");
  assert(Number(beyond) <= 0, `the page is ${beyond} pixels wider than a phone`);
  assert.deepEqual(complaints, []);
  await page.context().close();
}

/** The page that a sign-in returns to hands the code to the page that began it. */
async function comeBackFromSignIn(page: Page): Promise<void> {
  for (const folder of ["swagger/", "", "v1/"]) {
    const address = `${root}${folder}oauth2-redirect.html?code=${folder.length}&state=ours`;
    const code = await page.evaluate(
      `new Promise((resolve) => {
         const auth = { schema: { get: () => "authorizationCode" }, name: "OAuth2" };
         const callback = (returned) => resolve(returned.auth.code);
         window.swaggerUIRedirectOauth2 = { state: "ours", auth, callback, errCb: (error) => resolve(error.message) };
         window.open(${JSON.stringify(address)});
       })`,
    );
    assert.equal(code, String(folder.length), address);
  }
}

/** Opens a page, and collects what a user would not want to see: errors, and requests to elsewhere. */
async function open(browser: Browser, path: string): Promise<{ page: Page; complaints: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
  context.on("request", (request) => {
    if (!request.url().startsWith(root) && !request.url().startsWith("data:")) complaints.push(request.url());
  });
  await page.goto(root + path);
  await page.waitForSelector(".opblock");
  return { page, complaints };
}
