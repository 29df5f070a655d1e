// What an AI function is: a pure description. One row of arguments becomes questions (inputs for endpoints),
// and their answers become one SQL value. Nothing here waits, calls a model or knows DuckDB.
import type { AnswerItem, CacheMode, Input, Output, Parameters, Task } from '#core/call.ts';
import type { Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';

/** A value on its way into DuckDB; a Float32Array becomes FLOAT[]. */
export type SqlValue = Json | Float32Array;

/** DuckDB types a private function can return; everything else is a CAST around JSON. */
export type ReturnType = 'VARCHAR' | 'JSON' | 'FLOAT[]' | 'FLOAT' | 'DOUBLE' | 'BIGINT' | 'BOOLEAN';

/** One input for one endpoint. Equal questions of a statement are asked once. */
export interface Question {
  readonly endpoint: string;
  readonly task: Task;
  readonly parameters: Parameters;
  readonly cache: CacheMode;
  /** The row names the cache mode itself; else it is the session's. */
  readonly isCacheChosen?: boolean;
  readonly input: Input;
}

export interface Plan {
  readonly questions: readonly Question[];
  /** One item for each question, in order. A thrown ServingError fails the statement. */
  finish(items: readonly AnswerItem[]): SqlValue;
}
/** The row needs no model: NULL in, or a value that is known. */
export interface Settled {
  readonly value: SqlValue;
}

export interface EndpointDescription {
  readonly task: Task;
  readonly model: string;
  readonly sha256: string;
  readonly dimensions: number | null;
  readonly fingerprint: string;
  readonly signature: Signature | undefined;
}

/** What a description may ask while it plans: memory only, no I/O. */
export interface PlanContext {
  /** Throws ENDPOINT_NOT_FOUND. `task` picks among several that one endpoint serves. */
  describe(endpoint: string): EndpointDescription;
  /** Name of the endpoint for a function that was given none; throws MODEL_NOT_AVAILABLE with the ways out. */
  defaultEndpoint(use: 'chat' | 'embedding' | 'classify'): string;
  /** Session's cache mode, for calls that do not name one. */
  readonly cache: CacheMode;
}

export interface AiFunction {
  /** Name in DuckDB. Starts with `__`, or is public where a macro cannot stand in front (varargs). */
  readonly name: string;
  readonly returns: ReturnType;
  /** Position of the argument that differs from row to row; the others are mostly constants of the statement. */
  readonly subject: number;
  plan(args: readonly Json[], context: PlanContext): Plan | Settled;
  /** Which capability of a local model may answer this function inside the DuckDB callback. */
  readonly local?: 'embed' | 'predict';
}

/** One entry of `duckserve.functions`: what a person can call. */
export interface FunctionDoc {
  readonly name: string;
  readonly signature: string;
  readonly returns: string;
  readonly description: string;
  readonly example: string;
}

export const NULL_VALUE: Settled = { value: null };

/** The output of an item, or its error thrown. */
export function outputOf<T extends Output>(item: AnswerItem | undefined): T {
  if (!item) throw new ServingError('INTERNAL', 'An answer is missing for a question of this row.');
  if (!item.ok) throw item.error;
  return item.output as T;
}

/** Text of an argument: strings as they are, other values as JSON. */
export function textOf(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

export function requireText(value: Json, argument: string, functionName: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${functionName}: ${argument} must be a text that is not empty, it is ${JSON.stringify(value)}.`,
  );
}

export function cacheModeOf(value: Json, fallback: CacheMode, functionName: string): CacheMode {
  if (value === null) return fallback;
  if (value === 'on' || value === 'off' || value === 'read' || value === 'write') return value;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${functionName}: cache is ${JSON.stringify(value)}; it can be 'on', 'off', 'read' or 'write'.`,
  );
}
