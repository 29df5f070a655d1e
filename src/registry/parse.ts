// One way to check a specification from outside by a schema, and one wording of what is wrong with it.
// Not here: the schemas.
import type { z } from 'zod';
import { ServingError } from '#core/errors.ts';

/** One thing that is wrong, for doors that have other names for the fields. */
export interface Violation {
  readonly field: string;
  readonly description: string;
  /** The value as JSON, unless it is a whole object or may be a secret. */
  readonly shown?: string;
}

/** Throws INVALID_PARAMETER with all that is wrong; `details.violations` has the same one by one. */
export function parseShape<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return withoutUndefined(result.data) as T;
  const violations = result.error.issues.map(toViolation);
  const lines = violations.map(({ field, shown, description }) => {
    return `${field === '' ? 'it' : field}${shown === undefined ? '' : ` (${shown})`}: ${description}`;
  });
  throw new ServingError('INVALID_PARAMETER', `${what} is not valid: ${lines.join('; ')}.`, {
    details: { violations: violations.map((violation) => ({ ...violation })) },
  });
}

/** The last part of the path of every field whose value may be a secret. */
const SECRET_FIELD =
  /^(apiKey|clientSecret|accessKeyId|secretAccessKey|sessionToken|privateKey)(Plaintext)?$/;
const LONGEST_SHOWN = 200;

function toViolation(issue: z.core.$ZodIssue): Violation {
  const isSecret =
    issue.path.some((part) => SECRET_FIELD.test(String(part))) ||
    (issue.code === 'custom' && issue.params?.isSecret === true);
  const isPlain = ['string', 'number', 'boolean'].includes(typeof issue.input);
  const text = isPlain && !isSecret ? JSON.stringify(issue.input) : undefined;
  const shown = text !== undefined && text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
  return {
    field: issue.path.join('.'),
    description: issue.message,
    ...(shown === undefined ? {} : { shown }),
  };
}

function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => [key, withoutUndefined(member)]),
  );
}
