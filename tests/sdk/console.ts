// The console's account pages in a browser: the first account, sign-in and sign-out, two-factor
// authentication, an invitation. Checks every page in both themes and on a phone.
//
// HOWDAH_URL is the server's address, HOWDAH_SET_UP the link for the first account.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";

import type { Browser, Page } from "playwright-core";

import { check, launch, type Look, open, root } from "./browser.js";
import { done, required } from "./program.js";

const PASSWORD = "tusk-marble-wander-94";

await done("the console's pages about people", async () => {
  const browser = await launch();
  try {
    const ada = await open(browser, null);
    await setUp(ada.page);
    const secret = await addAuthenticator(ada.page);
    await forget(ada.page);
    await signInWithCode(ada.page, secret);
    await chooseTheme(ada.page);
    const invitation = await invite(ada.page);
    await accept(browser, invitation);
    await acceptWithoutScriptAndLeave(browser, await invite(ada.page, "carol"));
    const [cookie] = (await ada.page.context().cookies()).filter((one) => one.name === "howdah_session");
    assert(cookie?.httpOnly && cookie.sameSite === "Lax");
    await lookAtAll(browser, ada.page, cookie.value);
    await ada.page.goto(`${root}/console/account`);
    await ada.page.getByRole("button", { name: "Sign out" }).first().click();
    await ada.page.getByRole("button", { name: "Sign in" }).waitFor();
    await ada.page.goto(`${root}/console/account`);
    await ada.page.getByRole("button", { name: "Sign in" }).waitFor();
    assert.deepEqual(ada.complaints, []);
  } finally {
    await browser.close();
  }
});

async function setUp(page: Page): Promise<void> {
  await page.goto(`${root}/console`);
  await page.getByRole("heading", { name: "There is no account yet" }).waitFor();
  await check(page, "nobody has an account");
  await page.goto(required("HOWDAH_SET_UP"));
  await check(page, "set-up");
  const fill = async (password: string) => {
    await page.getByLabel("Your name").fill("Ada Lovelace");
    await page.locator("input[name=email]").fill("ada@example.com");
    await page.locator("input[name=password]").fill(password);
    await page.locator("input[name=again]").fill(password);
    await page.locator("main button[type=submit]").click();
  };
  await fill("password1234");
  await page.getByText("Too easy to guess").waitFor();
  await check(page, "a weak password");
  await fill(PASSWORD);
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
}

function code(secret: string): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const digest = createHmac("sha1", key).update(counter).digest();
  const offset = (digest[19] ?? 0) & 15;
  return String((digest.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

async function addAuthenticator(page: Page): Promise<string> {
  await page.goto(`${root}/console/account`);
  const form = page.locator("form[action='/console/account/authenticator']");
  await form.locator("input[name=current]").fill(PASSWORD);
  await form.locator("button[type=submit]").click();
  await page.getByRole("img", { name: "QR code for the authenticator app" }).waitFor();
  await check(page, "an authenticator");
  const secret = ((await page.locator("#totp-secret").textContent()) ?? "").replaceAll(" ", "").trim();
  await page.locator("input[name=code]").fill(code(secret));
  await page.getByRole("button", { name: "Turn on" }).click();
  await page.getByRole("heading", { name: "Recovery codes" }).waitFor();
  await check(page, "recovery codes");
  const codes = ((await page.locator("#recovery-codes").textContent()) ?? "").trim().split("\n");
  assert.equal(codes.length, 10);
  return codes[0] ?? "";
}

/** Requests a password reset link by mail. */
async function forget(page: Page): Promise<void> {
  const context = await page.context().browser()!.newContext({ viewport: { width: 390, height: 900 } });
  const other = await context.newPage();
  await other.goto(`${root}/console/sign-in`);
  await check(other, "signing in");
  await other.getByRole("link", { name: "Forgot your password?" }).click();
  await check(other, "a forgotten password");
  await other.locator("input[name=email]").fill("somebody@elsewhere.example");
  await other.getByRole("button", { name: "Send reset link" }).click();
  await other.getByRole("heading", { name: "Check your mail" }).waitFor();
  await check(other, "a link was asked for");
  await context.close();
}

/** Signs in with a recovery code, since the current code of the authenticator app is already used. */
async function signInWithCode(page: Page, recovery: string): Promise<void> {
  await page.goto(`${root}/console/account`);
  await page.getByRole("button", { name: "Sign out" }).first().click();
  await page.locator("input[name=email]").fill("ada@example.com");
  await page.locator("input[name=password]").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Two-factor authentication" }).waitFor();
  await check(page, "the second step");
  await page.locator("input[name=code]").fill(recovery);
  await page.locator("main button[type=submit]").first().click();
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
}

/** A chosen theme overrides the system's. */
async function chooseTheme(page: Page): Promise<void> {
  const paper = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
  const choose = async (theme: string) => {
    await page.goto(`${root}/console/account`);
    const form = page.locator("form[action='/console/account/theme']");
    await form.getByLabel(theme).check();
    await form.getByRole("button").click();
    await page.getByRole("status").waitFor();
  };
  const light = await paper();
  await choose("Dark");
  const dark = await paper();
  assert.notEqual(dark, light);
  await choose("Light");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await paper(), light);
  await choose("System");
  assert.equal(await paper(), dark);
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await paper(), light);
  await page.goto(`${root}/console`);
}

async function invite(page: Page, who = "grace"): Promise<string> {
  await page.getByLabel("Console", { exact: true }).getByRole("link", { name: "Members" }).click();
  await page.locator("form[action$='/members/invitations'] input[name=email]").fill(`${who}@example.com`);
  await page.locator("form[action$='/members/invitations'] select[name=role]").selectOption("developer");
  await page.locator("form[action$='/members/invitations'] button[type=submit]").click();
  const link = ((await page.locator(".secret pre").first().textContent()) ?? "").trim();
  assert(link.startsWith(`${root}/console/invitations/`), link);
  return link;
}

async function accept(browser: Browser, link: string): Promise<void> {
  const { page, complaints } = await open(browser, null, { width: 390 });
  await page.goto(link);
  await check(page, "an invitation");
  const form = page.locator("form[action$='/account']");
  await form.locator("input[name=name]").fill("Grace Hopper");
  await form.locator("input[name=password]").fill(PASSWORD);
  await form.locator("input[name=again]").fill(PASSWORD);
  await form.locator("button[type=submit]").click();
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
  assert.deepEqual(complaints, []);
  await page.context().close();
}

/** Without JavaScript: joins a workspace, and leaves it by typing its name. */
async function acceptWithoutScriptAndLeave(browser: Browser, link: string): Promise<void> {
  const { page, complaints } = await open(browser, null, { javaScriptEnabled: false });
  await page.goto(link);
  const form = page.locator("form[action$='/account']");
  await form.locator("input[name=name]").fill("Carol Shaw");
  await form.locator("input[name=password]").fill(PASSWORD);
  await form.locator("input[name=again]").fill(PASSWORD);
  await form.locator("button[type=submit]").click();
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
  await page.getByLabel("Console", { exact: true }).getByRole("link", { name: "Members" }).click();
  assert.equal(await page.locator("main form").count(), 0, "a developer decides about nobody");
  await page.getByLabel("Console", { exact: true }).getByRole("link", { name: "Settings" }).click();
  for (const [name, said] of [
    ["Something else", "does not match"],
    ["Default", "No workspaces"],
  ] as const) {
    // It stays open after an error.
    if (!(await page.locator(".danger-zone[open]").count())) await page.locator(".danger-zone summary").click();
    await page.locator("input[name=confirm]").fill(name);
    await page.locator(".danger-zone button").click();
    await page.getByText(said).first().waitFor();
  }
  assert.deepEqual(complaints, []);
  await page.context().close();
}

async function lookAtAll(browser: Browser, owner: Page, cookie: string): Promise<void> {
  const workspace = owner.url().replace(/\/members.*$/, "");
  const person = async () => {
    await owner.goto(`${root}/console/people`);
    return owner.locator("main a[href^='/console/people/']").last().evaluate((link) => (link as { href?: string }).href);
  };
  const pages = [
    `${root}/console/workspaces`,
    `${workspace}/members`,
    `${workspace}/settings`,
    `${root}/console/account`,
    `${workspace}/settings/delete`,
    `${root}/console/people`,
    `${root}/console/audit`,
    (await person()) ?? "",
  ];
  for (const look of [{}, { colorScheme: "dark" }, { width: 390 }, { width: 390, colorScheme: "dark" }] as Look[]) {
    const { page, complaints } = await open(browser, cookie, look);
    for (const address of pages) {
      const answer = await page.goto(address);
      assert.equal(answer?.status(), 200, address);
      await page.locator("main details").evaluateAll((all) => all.forEach((one) => ((one as { open?: boolean }).open = true)));
      await check(page, `${address} ${JSON.stringify(look)}`);
    }
    assert.deepEqual(complaints, []);
    await page.context().close();
  }
}
