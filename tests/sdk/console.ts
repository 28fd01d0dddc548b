// The console's pages about people in a browser: from the set-up link to an account with an
// authenticator, an invitation that somebody else accepts, and out again. Nothing is loaded from
// elsewhere, nothing is complained about, and axe finds no serious fault, in both themes and on a phone.
//
// HOWDAH_URL is the server's address, HOWDAH_SET_UP the link that it has printed.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

import { done, required } from "./program.js";

const root = required("HOWDAH_URL");
const password = "tusk-marble-wander-94";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const complaints: string[] = [];

const installed = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env["CHROMIUM"] ?? installed.find((path) => existsSync(path));
assert(executablePath, `no browser at ${installed.join(", ")}; script/bootstrap --test installs one`);

await done("the console's pages about people", async () => {
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];
  const browser = await chromium.launch({ executablePath, args: [...quiet, "--disable-gpu", "--no-first-run"] });
  try {
    const ada = await open(browser);
    await setUp(ada);
    const secret = await addAuthenticator(ada);
    await signOutAndIn(ada, secret);
    await chooseTheme(ada);
    const invitation = await invite(ada);
    await accept(browser, invitation);
    assert.deepEqual(complaints, []);
  } finally {
    await browser.close();
  }
});

/** A browser of its own. Collects what nobody wants to see: errors, and requests to elsewhere. */
async function open(browser: Browser, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  if (options.javaScriptEnabled !== false) await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.on("console", (message) => {
    // What a form that does not fit, or a link that is used, is answered with is meant.
    const isMeant = /the server responded with a status of (404|422)/.test(message.text());
    if (!isMeant && ["error", "warning"].includes(message.type())) complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error.message}`));
  context.on("request", (request) => {
    if (!request.url().startsWith(`${root}/`) && !request.url().startsWith("data:")) complaints.push(request.url());
  });
  return page;
}

/** Looks at the page in both themes, wide and on a phone, with everything on it unfolded. */
async function look(page: Page, what: string): Promise<void> {
  const before = page.viewportSize();
  await page.locator("details:not(.menu)").evaluateAll((all) => all.forEach((one) => one.setAttribute("open", "")));
  for (const colorScheme of ["light", "dark"] as const) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const shown = `${what}, ${colorScheme}, ${width} pixels`;
      const beyond = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth");
      assert(Number(beyond) <= 0, `${shown}: ${beyond} pixels wider than the window`);
      // Evaluated by the debugger, which the page's policy does not concern.
      await page.evaluate(axe);
      const found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
      const { violations } = found as { violations: { id: string; impact: string; nodes: { html: string }[] }[] };
      const serious = violations.filter((one) => ["serious", "critical"].includes(one.impact));
      const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
      assert.deepEqual(told, [], shown);
    }
  }
  await page.emulateMedia({ colorScheme: null });
  if (before) await page.setViewportSize(before);
}

async function setUp(page: Page): Promise<void> {
  await page.goto(`${root}/console`);
  await page.getByRole("heading", { name: "Nobody has an account yet" }).waitFor();
  await look(page, "nobody has an account");
  await page.goto(required("HOWDAH_SET_UP"));
  // With the keyboard alone: the first field has the focus.
  await page.keyboard.type("Ada Lovelace");
  await page.keyboard.press("Tab");
  await page.keyboard.type("ada@example.com");
  for (const word of ["password12", "password12"]) {
    await page.keyboard.press("Tab");
    await page.keyboard.type(word);
  }
  await page.keyboard.press("Enter");
  await page.getByText("too easily guessed").waitFor();
  assert.equal(await page.getByLabel("Your name").inputValue(), "Ada Lovelace", "what was typed is kept");
  assert.equal(await page.getByLabel("Password", { exact: true }).getAttribute("aria-invalid"), "true");
  await look(page, "set-up with a problem");
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByLabel("The same password again").fill(password);
  await page.getByRole("button", { name: "Make account" }).click();
  await page.waitForURL(/\/console\/workspaces\//);
  await page.goto(`${root}/console/workspaces`);
  await look(page, "workspaces");
  await page.goto(required("HOWDAH_SET_UP"));
  await page.getByRole("heading", { name: "This link is no longer good" }).waitFor();
  await look(page, "a link that is used");
}

async function addAuthenticator(page: Page): Promise<string> {
  await page.goto(`${root}/console/account`);
  await look(page, "the account");
  await page.getByLabel("Your password").fill(password);
  await page.getByRole("button", { name: "Add an authenticator" }).click();
  await page.getByRole("img", { name: "QR code for the authenticator" }).waitFor();
  await look(page, "the authenticator");
  const secret = ((await page.locator("#totp-secret").textContent()) ?? "").replaceAll(" ", "");
  await page.getByLabel("The six digits").fill("12345");
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByText("not the authenticator's code").waitFor();
  await page.getByLabel("The six digits").fill(code(secret, 0));
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByRole("heading", { name: "Recovery codes" }).waitFor();
  await look(page, "recovery codes");
  const shown = (await page.locator("#recovery-codes").textContent()) ?? "";
  assert.equal(shown.split("\n").length, 10);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate("navigator.clipboard.readText()"), shown);
  await page.getByRole("link", { name: "I have kept them" }).click();
  await look(page, "the account with an authenticator");
  return secret;
}

/** The code of RFC 6238 that an authenticator shows so many steps from now. */
function code(secret: string, steps: number): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const digest = createHmac("sha1", key).update(counter).digest();
  const number = digest.readUInt32BE((digest[19] ?? 0) & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

async function signOutAndIn(page: Page, secret: string): Promise<void> {
  await page.getByRole("navigation").getByRole("button", { name: "Sign out" }).click();
  await page.getByText("You have signed out.").waitFor();
  await look(page, "signing in");
  await page.goto(`${root}/console/account`);
  assert.match(page.url(), /\/console\/sign-in\?next=\/console\/account$/);
  await page.getByLabel("Email address").fill("ada@example.com");
  await page.getByLabel("Password").fill("something-else-42");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await look(page, "signing in with a problem");
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "One more step" }).waitFor();
  await look(page, "the code");
  await page.keyboard.type(code(secret, 1));
  await page.keyboard.press("Enter");
  await page.waitForURL(`${root}/console/account`);
}

/** What somebody has chosen holds against what the system says. */
async function chooseTheme(page: Page): Promise<void> {
  const paper = "getComputedStyle(document.body).backgroundColor";
  await page.emulateMedia({ colorScheme: "light" });
  const light = await page.evaluate(paper);
  await page.getByLabel("Dark", { exact: true }).check();
  await page.getByLabel("Dark", { exact: true }).locator("xpath=ancestor::form").getByRole("button").click();
  await page.getByRole("status").waitFor();
  const dark = await page.evaluate(paper);
  assert.notEqual(dark, light);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await page.evaluate(paper), dark);
  await page.getByLabel("As the system has them").check();
  await page.getByLabel("As the system has them").locator("xpath=ancestor::form").getByRole("button").click();
  await page.getByRole("status").waitFor();
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await page.evaluate(paper), light);
}

async function invite(page: Page): Promise<string> {
  await page.goto(`${root}/console/workspaces`);
  const workspace = await page.getByRole("link", { name: "Default" }).getAttribute("href");
  await page.goto(`${root}${workspace}/settings`);
  // On a phone the side bar is a menu.
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByText("Menu", { exact: true }).click();
  await page.getByRole("navigation").getByRole("link", { name: "Members" }).click();
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.getByLabel("Email address").fill("grace@example.com");
  await page.getByRole("button", { name: "Make invitation" }).click();
  await page.getByRole("heading", { name: "Send this link to grace@example.com" }).waitFor();
  await look(page, "an invitation that was made");
  const link = (await page.locator("#link").textContent()) ?? "";
  await page.getByRole("navigation").getByRole("link", { name: "Settings" }).click();
  await look(page, "settings");
  await page.goto(`${root}/console/people`);
  await look(page, "people");
  await page.getByRole("link", { name: "Ada Lovelace" }).first().click();
  await look(page, "a person");
  await page.goto(`${root}/console/nothing`);
  await look(page, "a page that is not there");
  return link;
}

/** Somebody else comes, without script. */
async function accept(browser: Browser, invitation: string): Promise<void> {
  const watching = await open(browser);
  await watching.goto(invitation);
  await look(watching, "an invitation");
  await watching.context().close();
  const page = await open(browser, { javaScriptEnabled: false });
  await page.goto(invitation);
  await page.getByLabel("Your name").fill("Grace Hopper");
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByLabel("The same password again").fill(password);
  await page.getByRole("button", { name: "Make account and join" }).click();
  await page.waitForURL(/\/console\/workspaces\//);
  await page.goto(`${page.url()}/members`);
  await page.getByRole("heading", { name: "Members" }).waitFor();
  assert.equal(await page.locator("main form").count(), 0, "a developer decides about nobody");
  await page.goto(page.url().replace(/members$/, "settings"));
  await page.getByText("Leave this workspace").click();
  await page.getByLabel("to confirm").fill("Something else");
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByText("This is not the name").waitFor();
  await page.getByLabel("to confirm").fill("Default");
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByRole("heading", { name: "You are in no workspace" }).waitFor();
  await page.context().close();
}
