// Bodies of the control plane, checked by their schemas. Values are shown in messages, except where a key may be:
// these bodies carry secrets in the clear.
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { type HttpContext, readJsonBody } from '../request.ts';

const LONGEST_VALUE = 80;
/** Any part of the path that sounds like it, rather than a list that one field may be missing from. */
const MAY_BE_SECRET = /key|secret|token|password|plaintext|auth|environment_vars/i;
/** Names of headers and numbers are no secrets, though they sound like it. */
const NEVER_SECRET = /^(tokens|key|principal)$/;

export async function readBody<T extends z.ZodType>(c: HttpContext, schema: T): Promise<z.output<T>> {
  return parseBody(schema, await readJsonBody(c));
}

/** Throws INVALID_PARAMETER with everything that is wrong, by the fields' own names. */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return withoutAbsent(parsed.data) as z.output<T>;
  const lines = parsed.error.issues.map((issue) => describe(issue, body));
  const fields = parsed.error.issues.map((issue) => z.core.toDotPath(issue.path));
  throw new ServingError('INVALID_PARAMETER', `${lines.slice(0, 5).join('; ')}.`, { details: { fields } });
}

function describe(issue: z.core.$ZodIssue, body: unknown): string {
  const where = z.core.toDotPath(issue.path) || 'body';
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => `'${key.slice(0, LONGEST_VALUE)}'`).join(', ');
    return `'${where}' has ${names}, which is not known here: check the spelling`;
  }
  const value = issue.path.reduce<unknown>(
    (at, key) =>
      isJsonObject(at) || Array.isArray(at) ? (at as Record<PropertyKey, unknown>)[key] : undefined,
    body,
  );
  const message = issue.message.replace(/\.$/, '');
  if (value === undefined) return `'${where}': ${message}; it is missing`;
  return `'${where}': ${message}${showAt(issue.path, value)}`;
}

function showAt(path: readonly PropertyKey[], value: unknown): string {
  const last = String(path.at(-1) ?? '');
  const isSecret = path.some((part) => MAY_BE_SECRET.test(String(part))) && !NEVER_SECRET.test(last);
  if (isSecret || (typeof value === 'object' && value !== null)) return '; what was sent is not shown';
  const text = JSON.stringify(value) ?? 'undefined';
  return `; got ${text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text}`;
}

/** Clients send null for what they leave out. Free-form members (JSON values of the user) are left alone. */
function withoutAbsent(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutAbsent);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined && member !== null)
      .map(([key, member]) => [key, withoutAbsent(member)]),
  );
}

export function present(members: Readonly<Record<string, Json | undefined>>): JsonObject {
  return Object.fromEntries(
    Object.entries(members).filter((member): member is [string, Json] => member[1] !== undefined),
  );
}
