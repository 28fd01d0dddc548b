// What every program here does: read where to go, check answers, and end with status 0 or with the
// first thing that is wrong.

import assert from "node:assert/strict";

import type { ManagementApiClient } from "@prisma/management-api-sdk";

/** The official SDK's client. */
export type Api = ManagementApiClient;

/** A variable that must be set. */
export function required(variable: string): string {
  const value = process.env[variable];
  if (!value) {
    console.error(`set ${variable}`);
    process.exit(2);
  }
  return value;
}

/** Runs the program; its end is the process's status. */
export async function done(what: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
    console.log(`${what}: done`);
  } catch (error) {
    console.error(`${what}: failed\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    process.exitCode = 1;
  }
}

/** What the SDK gives for a request. */
export type Answer<T> = { data?: T; error?: unknown; response: Response };

/** The body of an answer that must have this status. */
export async function ok<T>(what: string, status: number, request: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await request;
  assert.equal(response.status, status, `${what}: ${response.status} ${JSON.stringify(error ?? data)}`);
  return data as T;
}

/** Checks that a request is refused in the API's envelope, with this status and code. */
export async function refused(
  what: string,
  status: number,
  code: string,
  request: Promise<Answer<unknown>>,
): Promise<void> {
  const { data, error, response } = await request;
  const shown = JSON.stringify(error ?? data);
  assert.equal(response.status, status, `${what}: ${response.status} ${shown}`);
  const envelope = error as { error?: { code?: unknown; message?: unknown } } | undefined;
  assert.equal(envelope?.error?.code, code, `${what}: ${shown}`);
  assert.equal(typeof envelope?.error?.message, "string", `${what}: ${shown}`);
}
