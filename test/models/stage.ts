// What the tests of models share: the server that serves them, what each library has predicted, and how SQL and HTTP
// are asked. Not here: how two predictions are compared.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inject } from 'vitest';
import type { Json, JsonObject } from '#core/json.ts';
import type { Python } from './python.ts';

/** How `duckserve models register` of a model ended. */
export interface Registration {
  readonly name: string;
  /** What make_models.py calls the model. */
  readonly model: string;
  /** The engine that it should be served by. */
  readonly engine: string;
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Stage {
  readonly python: Python;
  /** Of `duckserve serve`, without a slash at the end; empty without Python, as is the rest. */
  readonly url: string;
  readonly pid: number;
  readonly admin: string;
  /** What make_models.py has written. */
  readonly folder: string;
  readonly registrations: readonly Registration[];
}

declare module 'vitest' {
  interface ProvidedContext {
    models: Stage;
  }
}

/** Rows and what the library itself predicts for them. */
export interface Case {
  readonly title: string;
  readonly body: JsonObject;
  readonly predictions: readonly Json[];
  readonly params?: JsonObject;
}

export interface Expected {
  readonly name: string;
  readonly library: string;
  readonly engine: string;
  readonly file?: string;
  readonly about?: string;
  readonly cases: readonly Case[];
}

export function stage(): Stage {
  return inject('models');
}

export function expectedOf(folder: string, name: string): Expected {
  return JSON.parse(readFileSync(join(folder, name, 'expected.json'), 'utf8')) as Expected;
}

/** What is registered: a directory of MLflow, or a file. */
export function pathOf(folder: string, { name, file }: Pick<Expected, 'name' | 'file'>): string {
  return join(folder, name, 'model', ...(file === undefined ? [] : [file]));
}

export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: Headers;
}

export async function post(
  path: string,
  body: Json,
  options: { readonly type?: string; readonly signal?: AbortSignal; readonly method?: string } = {},
): Promise<Answer> {
  const { url, admin } = stage();
  const response = await fetch(`${url}${path}`, {
    method: options.method ?? 'POST',
    headers: {
      authorization: `Bearer ${admin}`,
      'content-type': options.type ?? 'application/json',
      // Else one form of a request would be answered with what another has asked of the model.
      'x-duckserve-cache': 'off',
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(options.signal && { signal: options.signal }),
  });
  return { status: response.status, text: await response.text(), headers: response.headers };
}

export async function get(path: string): Promise<JsonObject> {
  const { url, admin } = stage();
  const response = await fetch(`${url}${path}`, { headers: { authorization: `Bearer ${admin}` } });
  return (await response.json()) as JsonObject;
}

export const invocations = (name: string): string => `/serving-endpoints/${name}/invocations`;

/** The predictions, or an error that shows what was answered instead. */
export async function predict(name: string, body: Json, type?: string): Promise<readonly Json[]> {
  const answer = await post(invocations(name), body, type === undefined ? {} : { type });
  if (answer.status !== 200) throw new Error(`${name}: ${answer.status} ${answer.text.slice(0, 1_000)}`);
  return (JSON.parse(answer.text) as { predictions: readonly Json[] }).predictions;
}

/** Rows of the last statement. */
export async function sql(statement: string): Promise<readonly (readonly Json[])[]> {
  const { status, text } = await post('/api/2.0/sql/statements', { statement, cache: 'off' });
  const said = JSON.parse(text) as {
    readonly status?: { readonly state: string };
    readonly result?: { readonly data_array?: readonly (readonly Json[])[] };
  };
  if (status !== 200 || said.status?.state !== 'SUCCEEDED')
    throw new Error(`${statement.slice(0, 200)}: ${text.slice(0, 1_000)}`);
  return said.result?.data_array ?? [];
}
