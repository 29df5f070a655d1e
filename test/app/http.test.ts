// `duckserve serve` as its own process, asked by the openai package and by plain fetch.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI, { type APIError } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sha256Hex } from '#core/fingerprint.ts';
import { stubChatText } from '../stub/answers.ts';
import type { StubProvider } from '../stub/provider.ts';
import { createStubEndpoint, PENGUINS, type Program, until, Workplace } from './support.ts';

const workplace = new Workplace();
let stub: StubProvider;
let server: Program;
let url: string;
let dataDir: string;

async function serve(dir: string, flags: readonly string[] = [], env: Record<string, string> = {}) {
  const program = workplace.program(['serve', '--port', '0', ...flags], { dataDir: dir, env });
  const [, address] = await program.stdoutMatch(/duckserve listens on (http:\S+)/);
  return { program, url: address ?? '' };
}

beforeAll(async () => {
  stub = await workplace.stub();
  dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  await createStubEndpoint(app, 'llm', stub);
  await app.registry.registerModel('penguins', join(PENGUINS, 'penguins.onnx'), {});
  await app.close();
  ({ program: server, url } = await serve(dataDir));
});
afterAll(() => workplace.clear());

const clientOf = (base: string) => new OpenAI({ baseURL: `${url}${base}`, apiKey: 'unused', maxRetries: 0 });
const say = (content: string) => [{ role: 'user' as const, content }];

async function post(path: string, body: object): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

describe('the openai client', () => {
  it.each(['/v1', '/serving-endpoints'])('chats, streams and embeds at %s', async (base) => {
    const client = clientOf(base);
    const answer = await client.chat.completions.create({ model: 'llm', messages: say('hello') });
    expect(answer.choices[0]?.message.content).toBe(stubChatText('hello'));
    expect(answer.usage?.prompt_tokens).toBe(2);

    const stream = await client.chat.completions.create({
      model: 'llm',
      messages: say('piece by piece'),
      stream: true,
      stream_options: { include_usage: true },
    });
    const pieces: string[] = [];
    let tokens = 0;
    for await (const chunk of stream) {
      pieces.push(chunk.choices[0]?.delta.content ?? '');
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    expect(pieces.join('')).toBe(stubChatText('piece by piece'));
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThan(3);
    expect(tokens).toBeGreaterThan(0);

    const embedded = await client.embeddings.create({
      model: 'embedded-static-256',
      input: ['a duck', 'a goose'],
    });
    expect(embedded.data.map(({ embedding }) => embedding.length)).toEqual([256, 256]);
    expect(embedded.data[0]?.embedding.some((value) => value !== 0)).toBe(true);

    const models = await client.models.list();
    expect(models.data.map(({ id }) => id)).toEqual(
      expect.arrayContaining(['echo-chat', 'embedded-static-256', 'llm', 'penguins']),
    );
  });

  it('gets errors as its own error classes, with our code', async () => {
    const failure = await clientOf('/v1')
      .chat.completions.create({ model: 'gone', messages: say('x') })
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(OpenAI.NotFoundError);
    expect((failure as APIError).code).toBe('ENDPOINT_NOT_FOUND');
  });

  it.each([
    { moment: 'before the answer', stream: false, behaviour: { latencyMs: 60_000 } },
    { moment: 'before the first piece of a stream', stream: true, behaviour: { latencyMs: 60_000 } },
    { moment: 'in the middle of a stream', stream: true, behaviour: { eventGapMs: 200 } },
  ])('stops paying when it hangs up $moment', async ({ moment, stream, behaviour }) => {
    stub.resetLedger();
    stub.behave({ latencyMs: 0, eventGapMs: 0, ...behaviour });
    const controller = new AbortController();
    const asked = clientOf('/v1')
      .chat.completions.create({ model: 'llm', messages: say(moment), stream }, { signal: controller.signal })
      .then(async (answer) => {
        // The rest would take seconds.
        if (Symbol.asyncIterator in answer) for await (const _chunk of answer) controller.abort();
      });
    await until(() => stub.ledger().inFlight === 1);
    if ('latencyMs' in behaviour) controller.abort();
    await asked.catch(() => undefined);
    await until(() => stub.ledger().inFlight === 0);
    expect(stub.ledger()).toMatchObject({ requests: 1, aborted: 1 });
    stub.behave({ latencyMs: 0, eventGapMs: 0 });
  });
});

describe('invocations', () => {
  it('take features in all four shapes and predict the same', async () => {
    const [header = '', ...lines] = readFileSync(join(PENGUINS, 'penguins.csv'), 'utf8')
      .trimEnd()
      .split('\n');
    const columns = header.split(',').slice(0, 4);
    const data = lines.slice(0, 40).map((line) => line.split(',').slice(0, 4).map(Number));
    const predict = async (body: object) => await post('/serving-endpoints/penguins/invocations', body);
    const records = data.map((row) => Object.fromEntries(row.map((cell, index) => [columns[index], cell])));
    const answers = [
      await predict({ dataframe_records: records }),
      await predict({ dataframe_split: { columns, data } }),
      await predict({ instances: data }),
      await predict({
        inputs: Object.fromEntries(columns.map((name, index) => [name, data.map((row) => row[index])])),
      }),
    ];
    const species = lines.slice(0, 40).map((line) => line.split(',')[4]);
    for (const answer of answers) expect(answer).toEqual({ status: 200, body: { predictions: species } });
    expect(await predict({ dataframe_records: [{ bill_length_mm: 39 }] })).toMatchObject({
      status: 400,
      body: { error_code: 'BAD_REQUEST', details: [{ reason: 'SCHEMA_MISMATCH' }] },
    });
  });

  it('take the body of the task of an endpoint', async () => {
    expect(await post('/serving-endpoints/echo-chat/invocations', { messages: say('quack') })).toMatchObject({
      status: 200,
      body: { choices: [{ message: { content: 'quack' } }] },
    });
    expect(
      await post('/serving-endpoints/embedded-static-256/invocations', { input: 'a duck' }),
    ).toMatchObject({ status: 200, body: { data: [{ index: 0 }] } });
  });
});

describe('SQL over HTTP', () => {
  it('runs a statement with AI functions and says what it asked', async () => {
    const statement = "SELECT i, ai_query('llm', 'row ' || i) AS said FROM range(3) t(i) WHERE i > :least";
    const body = { statement, parameters: [{ name: 'least', value: '0', type: 'BIGINT' }] };
    expect(await post('/api/2.0/sql/statements', body)).toMatchObject({
      status: 200,
      body: {
        status: { state: 'SUCCEEDED' },
        manifest: { total_row_count: 2, schema: { columns: [{ name: 'i' }, { name: 'said' }] } },
        result: {
          data_array: [
            [1, stubChatText('row 1')],
            [2, stubChatText('row 2')],
          ],
        },
        ai_calls: { asked: 2, cached: 0 },
      },
    });
    expect(await post('/api/2.0/sql/statements', body)).toMatchObject({
      body: { ai_calls: { asked: 0, cached: 2 } },
    });
    expect(await post('/api/2.0/sql/statements', { statement: 'SELEC 1' })).toMatchObject({
      status: 200,
      body: { status: { state: 'FAILED' }, error_reason: 'SQL_ERROR' },
    });
  });

  it('keeps tables from one request to the next, in main.duckdb', async () => {
    const run = (statement: string) => post('/api/2.0/sql/statements', { statement });
    await run('CREATE TABLE ducks AS SELECT 3 AS n');
    expect(await run('FROM ducks')).toMatchObject({ body: { result: { data_array: [[3]] } } });
  });
});

describe('operating it', () => {
  it('shows health and metrics', async () => {
    const health = (await (await fetch(`${url}/health`)).json()) as object;
    expect(health).toMatchObject({ status: 'ok' });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(/^duckserve_cached_inputs_total\{endpoint="llm".*\} [1-9]/m.test(metrics)).toBe(true);
    expect(/^duckserve_http_requests_total\{.*\} [1-9]/m.test(metrics)).toBe(true);
  });

  it('finishes what is in flight after SIGTERM and ends with 0', async () => {
    stub.behave({ latencyMs: 500 });
    stub.resetLedger();
    const asked = clientOf('/v1').chat.completions.create({ model: 'llm', messages: say('last words') });
    await until(() => stub.ledger().inFlight === 1);
    server.child.kill('SIGTERM');
    expect((await asked).choices[0]?.message.content).toBe(stubChatText('last words'));
    expect(await server.ended).toMatchObject({
      ...{ code: 0, signal: null, stdout: `duckserve listens on ${url}\n` },
    });
  });

  it('opens to other machines only with tokens, and then asks for one', async () => {
    const dir = workplace.directory();
    const refused = await workplace.run(['serve', '--port', '0', '--host', '0.0.0.0'], { dataDir: dir });
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^error: The host is '0\.0\.0\.0', .* DUCKSERVE_TOKENS .* \[INVALID_PARAMETER\]\n$/,
    );

    const token = 'correct-horse';
    const open = await serve(dir, ['--host', '0.0.0.0'], { DUCKSERVE_TOKENS: sha256Hex(token) });
    const base = open.url.replace('0.0.0.0', '127.0.0.1');
    const get = (headers: Record<string, string>) => fetch(`${base}/v1/models`, { headers });
    expect((await get({})).status).toBe(401);
    expect((await get({ authorization: 'Bearer wrong' })).status).toBe(401);
    expect((await get({ authorization: `Bearer ${token}` })).status).toBe(200);
    expect((await fetch(`${base}/health`)).status).toBe(200);
  });
});
