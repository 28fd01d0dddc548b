// Migration tools that make a shadow database beside the real one.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { countRows, otherDatabase, query, withSession } from "./sql.js";

const run = promisify(execFile);

/**
 * The statements of `prisma migrate dev`, in its order. The tool itself is not run: its engine
 * would have to be downloaded while the test runs.
 */
export async function migrateWithShadowDatabase(url: string): Promise<void> {
  const shadow = `prisma_migrate_shadow_db_${randomUUID()}`;
  await query(url, `CREATE DATABASE "${shadow}"`);
  try {
    await withSession(otherDatabase(url, shadow), async (client) => {
      await client.query("CREATE SCHEMA IF NOT EXISTS public");
      await client.query("CREATE TYPE mood AS ENUM ('calm', 'musth')");
      await client.query("CREATE TABLE herds (id serial PRIMARY KEY, mood mood NOT NULL DEFAULT 'calm')");
      await client.query("CREATE TABLE calves (id serial PRIMARY KEY, herd int REFERENCES herds ON DELETE CASCADE)");
      await client.query("CREATE INDEX calves_herd ON calves (herd)");
      const current = await client.query("SELECT current_database() AS name");
      assert.equal(current.rows[0].name, shadow, "the client's database name is passed on");
      const tables = await client.query("SELECT 1 FROM information_schema.tables WHERE table_schema = 'public'");
      assert.equal(tables.rowCount, 2, "a new database starts empty");
    });
  } finally {
    await query(url, `DROP DATABASE IF EXISTS "${shadow}"`);
  }
  const left = await query(url, `SELECT 1 FROM pg_database WHERE datname = '${shadow}'`);
  assert.equal(left.rowCount, 0, "the shadow database is gone");
}

/** graphile-migrate: recreates its shadow database, tries the migration there, then on the real one. */
export async function migrateWithTool(url: string): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "howdah-migrate-"));
  const shadow = "graphile_shadow";
  // The tool wants the string it makes databases over to differ from the one it migrates.
  const root = new URL(url);
  root.searchParams.set("application_name", "graphile-migrate");
  const owner = (await query(url, "SELECT current_user AS name")).rows[0].name as string;
  try {
    await mkdir(join(directory, "migrations", "committed"), { recursive: true });
    await writeFile(join(directory, ".gmrc"), JSON.stringify({ databaseOwner: owner }));
    await writeFile(join(directory, "migrations", "current.sql"), "CREATE TABLE howdahs (elephant text);\n");
    const tool = fileURLToPath(import.meta.resolve("graphile-migrate/dist/cli.js"));
    await run(process.execPath, [tool, "commit", "--message", "howdahs"], {
      cwd: directory,
      env: {
        ...process.env,
        DATABASE_URL: url,
        SHADOW_DATABASE_URL: otherDatabase(url, shadow),
        ROOT_DATABASE_URL: root.toString(),
      },
    });
    assert.equal(await countRows(url, "howdahs"), 0, "the migration reached the real database");
    assert.equal(await countRows(otherDatabase(url, shadow), "howdahs"), 0, "and the shadow database before it");
  } finally {
    await query(url, `DROP DATABASE IF EXISTS ${shadow}`);
    await rm(directory, { recursive: true, force: true });
  }
}
