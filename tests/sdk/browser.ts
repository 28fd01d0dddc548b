// A headless browser, and the checks of every page of the console: no requests to other hosts, no errors or
// warnings, and no serious finding of axe.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium, type Browser, type Page } from "playwright-core";

import { required } from "./program.js";

export const root = required("HOWDAH_URL");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const installed = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env["CHROMIUM"] ?? installed.find((path) => existsSync(path));
assert(executablePath, `no browser at ${installed.join(", ")}; script/bootstrap --test installs one`);

/** Starts a browser without background requests, with more arguments. */
export function launch(...more: string[]): Promise<Browser> {
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];
  return chromium.launch({ executablePath, args: [...quiet, "--disable-gpu", "--no-first-run", ...more] });
}

export type Opened = { page: Page; complaints: string[] };
export type Look = { width?: number; colorScheme?: "light" | "dark"; javaScriptEnabled?: boolean };

/** A browser with a session's cookie, if one is given. Collects errors, warnings and requests to other hosts. */
export async function open(browser: Browser, cookie: string | null, look: Look = {}): Promise<Opened> {
  const { width = 1280, colorScheme = "light", javaScriptEnabled = true } = look;
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme,
    javaScriptEnabled,
    permissions: ["clipboard-read", "clipboard-write"],
  });
  if (cookie !== null) {
    await context.addCookies([{ name: "howdah_session", value: cookie, url: root, httpOnly: true, sameSite: "Lax" }]);
  }
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    // A form with an error is answered with 422 on purpose.
    const isMeant = message.text().includes("the server responded with a status of 422");
    if (!isMeant && ["error", "warning"].includes(message.type())) complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  context.on("request", (request) => {
    if (!request.url().startsWith(`${root}/`) && !request.url().startsWith("data:")) complaints.push(request.url());
  });
  return { page, complaints };
}

/** Checks that the page fits the window and that axe has no serious finding. */
export async function check(page: Page, what: string): Promise<void> {
  const beyond = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth");
  assert(Number(beyond) <= 0, `${what} is ${beyond} pixels wider than the window`);
  // Evaluated by the debugger, so the page's Content-Security-Policy does not apply.
  await page.evaluate(axe);
  const found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
  const { violations } = found as { violations: { id: string; impact: string; nodes: { html: string }[] }[] };
  const serious = violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(told, [], what);
}
