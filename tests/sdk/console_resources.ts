// The console's resource pages in a browser: from a project to a `psql` that uses it, a restore, a token, a
// viewer. Checks every page in both themes and on a phone.
//
// HOWDAH_URL is the server's address, HOWDAH_WORKSPACE the path of a workspace without projects,
// HOWDAH_OWNER and HOWDAH_VIEWER are session cookies of two of its members.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import type { Browser, Page } from "playwright-core";

import { check, launch, type Look, open, root } from "./browser.js";
import { done, required } from "./program.js";

const workspace = root + required("HOWDAH_WORKSPACE");

await done("the console's pages of the resources", async () => {
  const browser = await launch();
  try {
    const owner = await open(browser, required("HOWDAH_OWNER"));
    const { string, project, database } = await makeProject(owner.page);
    await makeConnection(owner.page, database);
    await backUpAndRestore(owner.page, string, database);
    await makeAndRevokeToken(owner.page);
    const pages = await lookAtAll(browser, project, database);
    await onlyLook(browser, pages);
    await withoutScript(browser, string, database);
    assert.deepEqual(owner.complaints, []);
  } finally {
    await browser.close();
  }
});

function psql(string: string, sql: string): string {
  return execFileSync("psql", ["-X", "-A", "-t", "-q", "-d", string, "-c", sql], { encoding: "utf8" }).trim();
}

/** The secret that a page shows. Checks that the button copies it. */
async function revealed(page: Page): Promise<string> {
  const shown = (await page.locator(".secret pre").textContent()) ?? "";
  await page.locator(".secret button[data-copy]").click();
  await page.locator(".secret button", { hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate("navigator.clipboard.readText()"), shown);
  return shown;
}

/** Waits until the page, which refreshes itself, shows this status. */
async function until(page: Page, word: string): Promise<void> {
  await page.locator(".standing .status", { hasText: word }).waitFor({ timeout: 60_000 });
  await page.locator(".live:not([data-refresh])").waitFor({ timeout: 60_000 });
}

async function makeProject(page: Page): Promise<{ string: string; project: string; database: string }> {
  await page.goto(workspace);
  await page.getByRole("heading", { name: "No projects yet" }).waitFor();
  await page.getByRole("main").getByRole("link", { name: "New project" }).click();
  // With the keyboard only: the first field has the focus.
  await page.locator("#name:focus").waitFor();
  await page.keyboard.type("Web shop");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Project “Web shop” created" }).waitFor();
  const string = await revealed(page);
  assert.equal(psql(string, "SELECT 6 * 7"), "42");
  const shown = (await page.locator("#snippet-1").textContent()) ?? "";
  assert.equal(execFileSync("sh", ["-c", `${shown} -X -A -t -c 'SELECT 1'`], { encoding: "utf8" }).trim(), "1");
  await page.getByText("Python", { exact: true }).click();
  assert.match((await page.getByLabel("Python", { exact: true }).textContent()) ?? "", /psycopg/);
  await page.getByRole("link", { name: "Go to database" }).click();
  await until(page, "Ready");
  const database = page.url();
  assert(!(await page.content()).includes(string.split("@")[0] ?? ""), "the string is shown once");
  await page.getByLabel("Above this page").getByRole("link", { name: "Web shop" }).click();
  return { string, project: page.url(), database };
}

async function makeConnection(page: Page, database: string): Promise<void> {
  await page.goto(database);
  await page.getByLabel("New connection").fill("web\u200b");
  await page.getByRole("button", { name: "Create connection" }).click();
  assert.match((await page.locator("#name-problem").textContent()) ?? "", /is invisible/);
  await page.getByLabel("New connection").fill("worker");
  // A double click creates one connection.
  await page.getByRole("button", { name: "Create connection" }).dblclick();
  assert.equal(psql(await revealed(page), "SELECT 1"), "1");
  await page.getByRole("link", { name: "Go to database" }).click();
  await page.getByLabel("New connection").waitFor();
  // Back to the response of a form: the browser does not ask whether to send it again.
  await page.goBack();
  await page.getByRole("heading", { name: "Shown only once" }).waitFor();
  await check(page, "back to a secret");
  await page.goForward();
  await page.getByRole("link", { name: "Rotate… worker" }).click();
  await page.getByRole("button", { name: "Rotate" }).click();
  const rotated = await revealed(page);
  await page.reload();
  assert.equal(await revealed(page), rotated, "the answer is loaded again, and nothing is rotated again");
  assert.equal(psql(rotated, "SELECT 1"), "1");
  await page.goto(database);
  await page.getByRole("link", { name: "Delete… worker" }).click();
  await page.getByRole("button", { name: "Delete connection" }).click();
  await page.getByRole("status").filter({ hasText: "Connection “worker” deleted." }).waitFor();
}

async function backUpAndRestore(page: Page, string: string, database: string): Promise<void> {
  psql(string, "CREATE TABLE orders AS SELECT generate_series(1, 10) AS number");
  await page.goto(`${database}/backups`);
  await page.getByRole("button", { name: "Back up now" }).click();
  // The list refreshes itself.
  await page.locator("td .status.good", { hasText: "Completed" }).waitFor({ timeout: 60_000 });
  await page.goto(`${database}/restore`);
  const moment = page.getByLabel("Date and time, in UTC");
  const last = await moment.inputValue();
  psql(string, "DROP TABLE orders");
  assert(!(await page.getByLabel("Name of the new database").isHidden()));
  await page.getByLabel("In place").check();
  assert(await page.getByLabel("Name of the new database").isHidden(), "what belongs to another choice is away");
  await moment.fill(last);
  await page.getByLabel("to confirm").fill("web shop");
  await page.getByRole("button", { name: "Restore" }).click();
  assert.match((await page.locator("#confirm-problem").textContent()) ?? "", /Nothing was changed/);
  assert.equal(await page.getByLabel("Date and time, in UTC").inputValue(), last, "what was chosen is still chosen");
  await page.getByLabel("to confirm").fill("Web shop");
  await page.getByRole("button", { name: "Restore" }).click();
  await page.getByRole("status").filter({ hasText: "Restore started." }).waitFor();
  await until(page, "Ready");
  assert.equal(psql(string, "SELECT count(*) FROM orders"), "10");
}

async function makeAndRevokeToken(page: Page): Promise<void> {
  await page.goto(workspace);
  await page.getByLabel("Console", { exact: true }).getByRole("link", { name: "Integrations" }).click();
  await page.getByRole("link", { name: "New service token" }).click();
  await page.getByLabel("Name").fill("Nightly <b>job</b>");
  await page.getByLabel("Read-only").check();
  await page.getByLabel("Selected projects").check();
  await page.getByRole("group", { name: "Projects" }).getByLabel("Web shop").check();
  await page.getByRole("button", { name: "Create token" }).click();
  const value = await revealed(page);
  const status = async () =>
    (await fetch(`${root}/v1/projects`, { headers: { authorization: `Bearer ${value}` } })).status;
  assert.equal(await status(), 200);
  await page.getByRole("link", { name: "Go to integrations" }).click();
  const row = page.getByRole("row", { name: "Nightly <b>job</b>" });
  assert.match(await row.innerText(), /1 project\s+Read-only/);
  await row.getByRole("link", { name: "Revoke" }).click();
  assert.equal(await status(), 200, "asking changes nothing");
  await page.getByRole("button", { name: "Revoke token" }).click();
  await page.getByRole("status").filter({ hasText: "revoked" }).waitFor();
  assert.equal(await status(), 401);
}

/** Checks every page in both themes and on a phone. Returns their addresses. */
async function lookAtAll(browser: Browser, project: string, database: string): Promise<string[]> {
  const owner = required("HOWDAH_OWNER");
  const finder = await open(browser, owner);
  const first = async (address: string, selector: string) => {
    await finder.page.goto(address);
    return (await finder.page.locator(selector).first().evaluate((link) => (link as { href?: string }).href)) ?? "";
  };
  const pages = [
    workspace,
    `${workspace}/projects?q=nothing`,
    project,
    database,
    `${database}/backups`,
    `${workspace}/operations`,
    await first(database, "a[href*='/operations/']"),
    `${workspace}/integrations`,
    `${workspace}/audit`,
    `${workspace}/deleted`,
  ];
  const forms = [
    `${workspace}/projects/new`,
    `${project}/settings`,
    `${project}/databases/new`,
    `${project}/branches/new`,
    `${database}/settings`,
    `${database}/restore`,
    await first(database, "a[href$='/rotate']"),
    `${workspace}/integrations/tokens/new`,
    `${workspace}/integrations/applications/new`,
  ];
  await finder.page.context().close();
  for (const look of [{}, { colorScheme: "dark" }, { width: 390 }, { width: 390, colorScheme: "dark" }] as Look[]) {
    const { page, complaints } = await open(browser, owner, look);
    for (const address of [...pages, ...forms]) {
      const answer = await page.goto(address);
      assert.equal(answer?.status(), 200, address);
      await page.locator("details").evaluateAll((all) => all.forEach((one) => ((one as { open?: boolean }).open = true)));
      if (look.width) await page.locator("details.menu").evaluate((one) => ((one as { open?: boolean }).open = false));
      await check(page, `${address} ${JSON.stringify(look)}`);
    }
    // A page with a form error.
    await page.goto(`${project}/settings`);
    await page.getByLabel("Name", { exact: true }).fill("x".repeat(300));
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("#name-problem").waitFor();
    await check(page, `a problem ${JSON.stringify(look)}`);
    assert.deepEqual(complaints, []);
    await page.context().close();
  }
  return [...pages, ...forms];
}

/** A viewer sees the pages without forms, and cannot open pages with forms. */
async function onlyLook(browser: Browser, pages: string[]): Promise<void> {
  const { page } = await open(browser, required("HOWDAH_VIEWER"));
  let refused = 0;
  for (const address of pages) {
    const status = (await page.goto(address))?.status();
    if (status === 403) {
      refused += 1;
      await page.getByRole("heading", { name: "Permission denied" }).waitFor();
      continue;
    }
    assert.equal(status, 200, address);
    assert.equal(await page.locator("main form[method=post]").count(), 0, address);
  }
  assert.equal(refused, 9, "the forms");
  await page.context().close();
}

/** Everything works without JavaScript. */
async function withoutScript(browser: Browser, string: string, database: string): Promise<void> {
  const { page } = await open(browser, required("HOWDAH_OWNER"), { javaScriptEnabled: false });
  await page.goto(`${database}/restore`);
  await page.getByRole("radio", { name: /^New database/ }).check();
  await page.getByLabel("Name of the new database").fill("Copy");
  await page.getByRole("button", { name: "Restore" }).click();
  const copy = (await page.locator(".secret pre").textContent()) ?? "";
  assert.notEqual(copy, string);
  assert.equal(await page.locator(".secret button[data-copy]").isVisible(), false, "no button that does nothing");
  assert.equal(psql(copy, "SELECT count(*) FROM orders"), "10");
  await page.getByRole("link", { name: "Go to database" }).click();
  await page.getByRole("link", { name: "Settings" }).last().click();
  await page.getByText("Delete this database").click();
  await page.getByLabel("to confirm").fill("Copy");
  await page.getByRole("button", { name: "Delete database" }).click();
  await page.getByRole("status").filter({ hasText: "Database “Copy” deleted." }).waitFor();
  await page.context().close();
}
