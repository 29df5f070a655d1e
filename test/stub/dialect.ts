// What a provider's API is to the stub: which paths are its own, what it refuses, how it spells answers and errors.
// Each dialect is written from the provider's documentation and shares no code with the engine it tests.
import type { IncomingHttpHeaders } from 'node:http';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { TokenDesk } from './tokens.ts';

export interface DialectRequest {
  readonly path: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: JsonObject;
  /** The bytes as they came. */
  readonly text: string;
}

export interface DialectOptions {
  readonly dimensions: number;
  readonly omitUsage: boolean;
  readonly tokens: TokenDesk;
}

export interface Refusal {
  readonly status: number;
  /** In the spelling of the provider. */
  readonly type: string;
  readonly message: string;
}

export interface Reply {
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}
export interface StreamReply {
  readonly contentType: string;
  readonly events: readonly (string | Buffer)[];
}
export interface Said {
  readonly reply: Reply | StreamReply;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

export interface Dialect {
  matches(path: string): boolean;
  isStream(request: DialectRequest): boolean;
  /** Inputs, for the ledger. */
  textsOf(body: JsonObject): readonly string[];
  /** Bad credentials, unknown fields, what the API forbids. */
  refuse(request: DialectRequest, options: DialectOptions): Refusal | undefined;
  answer(request: DialectRequest, options: DialectOptions): Said;
  error(refusal: Refusal): Reply;
  /** An event that is broken in itself. */
  readonly malformed: string | Buffer;
}

/** The first field of `value` that is not in `known`, as a refusal. Names are split at spaces. */
export function unknownField(value: Json | undefined, known: string, where: string): string | undefined {
  if (!isJsonObject(value)) return undefined;
  const names = new Set(known.split(/\s+/));
  const wrong = Object.keys(value).find((name) => !names.has(name));
  return wrong === undefined ? undefined : `Unknown name "${wrong}" at ${where}`;
}

export const isObjects = (value: Json | undefined): readonly JsonObject[] =>
  Array.isArray(value) ? value.filter(isJsonObject) : [];

export const objectIn = (value: Json | undefined): JsonObject => (isJsonObject(value) ? value : {});
