// SQL over a connection string, as an application would do it with node-postgres.

import assert from "node:assert/strict";
import { TLSSocket } from "node:tls";

import pg from "pg";

/** Where a session goes: a connection string, or that with node-postgres's own options. */
export type Target = string | pg.ClientConfig;

/** Opens a session, does something in it, and closes it. */
export async function withSession<T>(target: Target, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(target);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** Runs one statement in a session of its own. */
export async function query(target: Target, sql: string): Promise<pg.QueryResult> {
  return withSession(target, (client) => client.query(sql));
}

/** How many rows a table has. */
export async function countRows(target: Target, table: string): Promise<number> {
  const result = await query(target, `SELECT count(*)::int AS n FROM ${pg.escapeIdentifier(table)}`);
  return (result.rows[0] as { n: number }).n;
}

/** Whether the server refuses the password or the user: SQLSTATE 28P01 or 28000. */
export async function isRefused(target: Target): Promise<boolean> {
  try {
    await query(target, "SELECT 1");
    return false;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    assert(code === "28P01" || code === "28000", `refused, but not as a wrong password: ${String(error)}`);
    return true;
  }
}

/** The same database through TLS: sslmode=require as libpq means it, encrypted and not verified. */
export async function withTls<T>(url: string, use: (target: Target) => Promise<T>): Promise<T> {
  const target = { connectionString: encrypted(url) };
  await withSession(target, async (client) => assert(isEncrypted(client), "sslmode=require gave a TLS session"));
  return use(target);
}

/** The same through TLS with SCRAM-SHA-256-PLUS. */
export async function withChannelBinding<T>(url: string, use: (target: Target) => Promise<T>): Promise<T> {
  return use({ connectionString: encrypted(url), enableChannelBinding: true } as pg.ClientConfig);
}

/** The same server with another database name. */
export function otherDatabase(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${encodeURIComponent(database)}`;
  return other.toString();
}

function encrypted(url: string): string {
  const other = new URL(url);
  other.searchParams.set("sslmode", "require");
  other.searchParams.set("uselibpqcompat", "true");
  return other.toString();
}

function isEncrypted(client: pg.Client): boolean {
  const { connection } = client as unknown as { connection: { stream: unknown } };
  return connection.stream instanceof TLSSocket;
}
