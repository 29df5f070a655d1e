// The OpenAPI 3.1 description: every route there is, with the schemas that check its body. Answers are described by
// name only: they are those of the APIs the paths belong to. What a route is for stands in route-descriptions.ts.
import { z } from 'zod';
import type { JsonObject } from '#core/json.ts';
import { DESCRIPTIONS } from './route-descriptions.ts';

interface Route {
  readonly method: string;
  readonly path: string;
}

let built: { readonly key: string; readonly text: JsonObject } | undefined;

/** Built on first use and kept: neither schemas nor routes change while a server runs. */
export function formatOpenapi(version: string, routes: readonly Route[]): JsonObject {
  const offered = routes.filter(({ method }) => method !== 'ALL');
  const key = `${version} ${offered.map(({ method, path }) => `${method} ${path}`).join(' ')}`;
  if (built?.key !== key) built = { key, text: build(version, offered) };
  return built.text;
}

function build(version: string, routes: readonly Route[]): JsonObject {
  const paths: Record<string, Record<string, JsonObject>> = {};
  for (const { method, path } of routes) {
    const written = toOpenapiPath(path);
    paths[written] = { ...paths[written], [method.toLowerCase()]: operation(method, written) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'duckserve', version, description: 'Model serving and AI functions for DuckDB.' },
    paths,
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    security: [{}, { bearer: [] }],
  };
}

/** A colon inside a segment is part of it (`config:stop`). */
export function toOpenapiPath(path: string): string {
  return path.replace(/\/:(\w+)(\{[^/]*\})?/g, '/{$1}');
}

function operation(method: string, path: string): JsonObject {
  const key = `${method} ${path}`;
  const { summary, body, answerType = 'application/json', takesCsv } = DESCRIPTIONS[key] ?? { summary: key };
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '');
  const content = body && {
    'application/json': { schema: toSchema(body) },
    ...(takesCsv ? { 'text/csv': { schema: { type: 'string' } } } : {}),
  };
  return {
    summary,
    parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
    ...(content ? { requestBody: { required: true, content } } : {}),
    responses: {
      200: { description: 'Done', content: { [answerType]: {} } },
      default: { description: 'An error, in the shape of the API the path belongs to' },
    },
  };
}

function toSchema(body: z.ZodType): JsonObject {
  const { $schema: _dialect, ...schema } = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any' });
  return schema as JsonObject;
}
