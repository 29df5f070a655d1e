// The OpenAPI description against the routes that are really offered, both ways.
import { describe, expect, it } from 'vitest';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { toOpenapiPath } from '../../../src/server/http/openapi.ts';
import { DESCRIPTIONS } from '../../../src/server/http/route-descriptions.ts';
import { createFakeDeps, readJson } from './fake-deps.ts';

const app = createHttpApp(createFakeDeps());
const offered = app.routes
  .filter((route) => route.method !== 'ALL')
  .map((route) => `${route.method} ${toOpenapiPath(route.path)}`);

describe('the OpenAPI description', () => {
  it('has a sentence for every route, and none for a route that does not exist', () => {
    expect(Object.keys(DESCRIPTIONS).toSorted()).toEqual([...new Set(offered)].toSorted());
  });

  it('lists every route under its path and method', async () => {
    const description = await readJson(await app.request('/openapi.json'));
    const described = Object.entries<object>(description.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(described.toSorted()).toEqual([...new Set(offered)].toSorted());
  });

  it.each([
    ['/v1/chat/completions', ['messages']],
    ['/v1/completions', ['prompt']],
    ['/v1/embeddings', ['input']],
    ['/v1/responses', ['input']],
    ['/v1/messages', ['messages']],
    ['/v2/models/{name}/infer', ['inputs']],
    ['/api/2.0/sql/statements', ['statement']],
  ])('says what a body of %s must hold', async (path, required) => {
    const { paths } = await readJson(await app.request('/openapi.json'));
    const schema = paths[path]?.post?.requestBody.content['application/json']?.schema;
    expect(schema?.required).toEqual(required);
  });

  it('keeps a colon that belongs to a path', () => {
    expect(toOpenapiPath('/a/:name/config:stop')).toBe('/a/{name}/config:stop');
    expect(toOpenapiPath('/a/:id{[0-9]+}/b')).toBe('/a/{id}/b');
  });
});
