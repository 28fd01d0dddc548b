// Signing in with a third-party identity provider in a browser.
//
// HOWDAH_URL is the server's address, PROVIDER_URL the provider's, which takes every name and password.

import assert from "node:assert/strict";

import { check, launch, open, root } from "./browser.js";
import { done, required } from "./program.js";

const provider = required("PROVIDER_URL");

await done("signing in with an identity provider", async () => {
  const browser = await launch();
  try {
    for (const look of [{ width: 390, colorScheme: "dark" }, { width: 1280 }] as const) {
      const { page, complaints } = await open(browser, null, look);
      await page.goto(`${root}/console/account`);
      await check(page, "the page for signing in");
      await page.getByRole("link", { name: "Continue with 127.0.0.1" }).click();
      await page.locator("input[name=login]").fill("grace@example.com");
      await page.locator("input[name=password]").fill("whatever");
      await page.getByRole("button", { name: "Sign-in" }).click();
      await page.getByRole("button", { name: "Continue" }).click();
      await page.waitForURL(`${root}/console/account`);
      assert.match(await page.locator("main").innerText(), /Grace Hopper|grace@example\.com/);
      assert.equal(await page.locator("input[name=name]").inputValue(), "Grace Hopper");
      assert.match(await page.locator("main").innerText(), /Connected/);
      await check(page, "the account of somebody without a password");
      // The provider's own pages are not checked.
      const ours = complaints.filter((one) => !one.startsWith(provider) && !one.includes("fonts.googleapis.com"));
      assert.deepEqual(ours, []);
      await page.context().close();
    }
  } finally {
    await browser.close();
  }
});
