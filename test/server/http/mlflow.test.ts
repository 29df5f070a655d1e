// MLflow's scoring protocol: content types, CSV, and the root paths that ask the only custom model.
import { beforeEach, describe, expect, it } from 'vitest';
import type { Signature } from '#core/endpoint.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { createFakeDeps, type FakeDeps, readJson } from './fake-deps.ts';

let deps: FakeDeps;
let app: ReturnType<typeof createHttpApp>;
let signature: Signature | undefined;
beforeEach(() => {
  deps = createFakeDeps();
  signature = undefined;
  app = createHttpApp({
    ...deps,
    serving: {
      ...deps.serving,
      describe: (endpoint, task = 'predict') => ({
        target: { endpoint, servedEntity: 's', engine: 'onnx', task, fingerprint: 'f', model: 'm' },
        ...(signature && { signature }),
      }),
    },
  });
});

const IRIS = '/serving-endpoints/iris/invocations';
const post = (body: string | Uint8Array<ArrayBuffer>, type: string | undefined, path = IRIS) =>
  app.request(path, { method: 'POST', body, headers: type === undefined ? {} : { 'content-type': type } });
const features = () =>
  deps.calls.at(-1)?.inputs.map((input) => ('features' in input ? input.features : null));
const column = (name: string, type: Signature['inputs'][number]['type']) => ({ name, type, required: true });

describe('a table as CSV', () => {
  it('has the types of its columns where no signature tells them', async () => {
    const csv = '\ufeffa,b,c,d,"e, f"\r\n1,2.5,true,x,\r\n-3,1e3,False,"say ""hi""",\r\n';
    const response = await post(csv, 'text/csv');
    expect(response.status).toBe(200);
    expect(features()).toEqual([
      { a: 1, b: 2.5, c: true, d: 'x', 'e, f': null },
      { a: -3, b: 1000, c: false, d: 'say "hi"', 'e, f': null },
    ]);
    expect(deps.calls[0]?.client).toMatchObject({ apiType: 'mlflow/invocations', path: IRIS });
  });

  it('has the types of the signature', async () => {
    signature = {
      inputs: [column('zip', 'string'), column('n', 'long'), column('x', 'double'), column('ok', 'boolean')],
      outputs: [],
    };
    await post('zip,n,x,ok\n01234,3.0,7,TRUE\n,,,', 'text/csv; charset=utf-8');
    expect(features()).toEqual([
      { zip: '01234', n: 3, x: 7, ok: true },
      { zip: null, n: null, x: null, ok: null },
    ]);
  });

  it.each([
    ['n\nabc', 'Row 2 of the CSV (the header is row 1) has "abc" in column "n", which takes a whole number.'],
    ['n\n1\n1.5', 'Row 3'],
    ['n\n9007199254740993', 'below 2^53'],
    ['x\nfast', 'which takes a number'],
    ['ok\n2', 'which takes true or false'],
    ['', 'The CSV is empty'],
    ['a,b\n1', 'The body is not CSV'],
    ['a\n"open', 'The body is not CSV'],
    ['a,a\n1,2', 'names the column "a" twice'],
  ])('%j is refused with the place', async (csv, message) => {
    signature = {
      inputs: [column('n', 'long'), column('x', 'double'), column('ok', 'boolean')],
      outputs: [],
    };
    const response = await post(csv, 'text/csv');
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toContain(message);
    expect(deps.calls).toHaveLength(0);
  });

  it('without rows has no predictions', async () => {
    expect(await (await post('a,b\n', 'text/csv')).json()).toEqual({ predictions: [] });
  });
});

describe('the content type of a table', () => {
  const json = JSON.stringify({ instances: [1] });

  it.each([
    undefined,
    'application/json',
    'application/json; charset=utf-8',
    'APPLICATION/JSON;charset="UTF-8"',
    'application/vnd.api+json',
    'text/plain',
    'application/x-www-form-urlencoded',
  ])('%s is read as JSON', async (type) => {
    expect((await post(json, type)).status).toBe(200);
  });

  it.each([
    ['application/json; charset=latin1', 'only utf-8'],
    ['application/json; profile=x', 'only charset is known'],
    ['text/csv; header=present', 'only charset is known'],
    ['application/xml', 'send application/json or text/csv'],
    ['multipart/form-data; boundary=x', ''],
  ])('%s is a 415 that says why', async (type, message) => {
    const response = await post(json, type);
    expect(response.status).toBe(415);
    expect((await readJson(response)).message).toContain(message);
  });

  it('CSV is not for language models, whose JSON may name other parameters', async () => {
    expect((await post('a\n1', 'text/csv', '/serving-endpoints/chat/invocations')).status).toBe(415);
    const chat = JSON.stringify({ messages: [{ role: 'user', content: 'x' }] });
    const type = 'application/json; profile=x';
    expect((await post(chat, type, '/serving-endpoints/chat/invocations')).status).toBe(200);
  });

  it('bytes that are no UTF-8 are refused, not put right', async () => {
    const bytes = Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x7d]);
    const response = await post(bytes, 'application/json');
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toContain('not UTF-8');
  });

  it('a table may have 16 MiB, everything else 4 MiB', async () => {
    const wide = JSON.stringify({ instances: ['x'.repeat(5 * 1024 * 1024)] });
    expect((await post(wide, 'application/json')).status).toBe(200);
    const long = JSON.stringify({ messages: [{ role: 'user', content: 'x'.repeat(5 * 1024 * 1024) }] });
    const refused = await post(long, 'application/json', '/serving-endpoints/chat/invocations');
    expect(refused.status).toBe(413);
    expect((await readJson(refused)).message).toContain('over 4194304 bytes (4 MiB)');
    expect((await post('x'.repeat(17 * 1024 * 1024), 'application/json')).status).toBe(413);
  });
});

describe('a body in the manner of language models', () => {
  it('is one row of a model that has such a column, and its answer stands alone', async () => {
    signature = { inputs: [column('prompt', 'string'), column('style', 'string')], outputs: [] };
    const body = JSON.stringify({ prompt: 'x', style: 'y', client_request_id: 'mine' });
    const response = await post(body, 'application/json');
    expect(await response.json()).toEqual(['x', 'y']);
    expect(features()).toEqual([{ prompt: 'x', style: 'y' }]);
    expect(deps.calls[0]?.clientRequestId).toBe('mine');
  });

  it('is told which keys the endpoint takes where the model has no such column', async () => {
    const response = await post(JSON.stringify({ messages: [] }), 'application/json');
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toContain('takes exactly one of dataframe_split');
  });
});

describe('the root paths of a scoring server', () => {
  const body = JSON.stringify({ instances: [[1, 2]] });

  it('ask the only custom model, or the one that is named', async () => {
    expect((await post(body, 'application/json', '/invocations')).status).toBe(200);
    expect(deps.calls.at(-1)?.endpoint).toBe('iris');
    await post(JSON.stringify({ input: 'a' }), 'application/json', '/invocations?endpoint=vectors');
    expect(deps.calls.at(-1)?.endpoint).toBe('vectors');
    await app.request('/invocations', { method: 'POST', body, headers: { 'x-duckserve-endpoint': 'iris' } });
    expect(deps.calls.at(-1)?.endpoint).toBe('iris');
    expect((await post(body, 'application/json', '/gateway/iris/mlflow/invocations')).status).toBe(200);
  });

  it('ask for a name where there are none or several', async () => {
    await deps.registry.deleteEndpoint('iris');
    const response = await post(body, 'application/json', '/invocations');
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toContain(
      'there is none: name an endpoint with ?endpoint=NAME',
    );
  });

  it('tell that the server runs, and its version', async () => {
    expect(await (await app.request('/ping')).text()).toBe('\n');
    expect(await (await app.request('/version')).text()).toBe('9.9.9');
  });
});
