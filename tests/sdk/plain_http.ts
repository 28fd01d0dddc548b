// The console over plain HTTP at an address other than localhost, where browsers send no `Sec-Fetch-Site` and
// have no `navigator.clipboard`: the first account, signing in, a project, copy buttons.
//
// HOWDAH_URL is the server's address under a name that only this browser resolves, HOWDAH_SET_UP the path of
// the set-up link.

import assert from "node:assert/strict";

import type { Page } from "playwright-core";

import { check, launch, open, root } from "./browser.js";
import { done, required } from "./program.js";

const PASSWORD = "tusk-marble-wander-94";

await done("the console over plain HTTP", async () => {
  const browser = await launch(`--host-resolver-rules=MAP ${new URL(root).hostname} 127.0.0.1`);
  try {
    const { page, complaints } = await open(browser, null);
    const sent: (string | undefined)[] = [];
    page.on("request", (request) => {
      if (request.method() === "POST") void request.allHeaders().then((headers) => sent.push(headers["sec-fetch-site"]));
    });
    await setUp(page);
    await signInAgain(page);
    await createAndCopy(page);
    assert.deepEqual(sent, [undefined, undefined, undefined, undefined], "the browser takes the address for insecure");
    assert.deepEqual(complaints, []);
  } finally {
    await browser.close();
  }
});

async function warned(page: Page): Promise<void> {
  await page.getByText("This connection is not encrypted.").waitFor();
}

async function setUp(page: Page): Promise<void> {
  await page.goto(root + required("HOWDAH_SET_UP"));
  assert.equal(await page.evaluate("isSecureContext"), false);
  await warned(page);
  await check(page, "set-up over plain HTTP");
  await page.getByLabel("Your name").fill("Ada Lovelace");
  await page.locator("input[name=email]").fill("ada@example.com");
  await page.locator("input[name=password]").fill(PASSWORD);
  await page.locator("input[name=again]").fill(PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
}

async function signInAgain(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Sign out" }).first().click();
  await page.getByText("Signed out.").waitFor();
  await warned(page);
  await page.locator("input[name=email]").fill("ada@example.com");
  await page.locator("input[name=password]").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
}

/** The copied text can be pasted. */
async function createAndCopy(page: Page): Promise<void> {
  await page.getByRole("main").getByRole("link", { name: "New project" }).click();
  await page.locator("#name").fill("Web shop");
  await page.getByRole("button", { name: "Create project" }).click();
  const shown = ((await page.locator(".secret pre").textContent()) ?? "").trim();
  assert.match(shown, /^postgres:/);
  assert.equal(await page.evaluate("navigator.clipboard"), undefined);
  await page.locator(".secret button[data-copy]").click();
  await page.locator(".secret button", { hasText: "Copied" }).waitFor();
  await page.goto(`${root}/console`);
  await page.locator("#q").focus();
  await page.keyboard.press("Control+V");
  assert.equal(await page.locator("#q").inputValue(), shown);
}
