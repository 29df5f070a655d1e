// The object graph as a whole: registry, doors, models and system tables of one data directory.
import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import { startHttpServer } from '#server/http/server.ts';
import type { App } from '../../src/app.ts';
import { stubChatText } from '../stub/answers.ts';
import { createStubEndpoint, PENGUINS, rowsOf, stubSpec, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

/** The HTTP door on an application that is open already. */
async function openDoor(app: App) {
  const { serving, registry, identity, openSession, createBudget } = app;
  const deps = { serving, registry, identity, openSession, createBudget, log: SILENT_LOG, version: '0.0.0' };
  const server = await startHttpServer(deps, { port: 0 });
  workplace.onClear(() => server.close());
  const send = async (path: string, body?: object): Promise<{ status: number; body: JsonObject }> => {
    const init =
      body === undefined
        ? {}
        : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
    const response = await fetch(`${server.url}${path}`, init);
    const parsed: unknown = await response.json();
    return { status: response.status, body: isJsonObject(parsed) ? parsed : {} };
  };
  const chat = async (model: string, prompt: string): Promise<Json | undefined> => {
    const { body } = await send('/v1/chat/completions', {
      model,
      temperature: 0,
      messages: [{ role: 'user', content: prompt }],
    });
    return (body as { choices?: { message: { content: string } }[] }).choices?.[0]?.message.content;
  };
  return { send, chat };
}

describe('a new data directory', () => {
  it('has the embedded endpoints, and they answer without configuration', async () => {
    const app = await workplace.app({ dataDir: workplace.directory() });
    expect(app.registry.listEndpoints().map(({ name }) => name)).toEqual([
      'echo-chat',
      'echo-completions',
      'echo-embeddings',
      'embedded-all-minilm-l6-v2',
      'embedded-static-256',
      'embedded-tinyllama-1-1b-chat',
    ]);
    const session = await app.openSession();
    expect(
      await rowsOf(
        session,
        `SELECT ai_query('echo-chat', 'hello'), ai_query('echo-completions', 'on'),
                len(ai_query('echo-embeddings', 'x')), len(ai_embed('embedded-static-256', 'a duck')),
                ai_similarity('a duck', 'ducks', endpoint => 'embedded-static-256')
                  > ai_similarity('a duck', 'tax form', endpoint => 'embedded-static-256')`,
      ),
    ).toEqual([['hello', 'on', 64, 256, true]]);
  });

  it('says which model an endpoint answers with, by name and hash', async () => {
    const app = await workplace.app({ dataDir: workplace.directory() });
    const session = await app.openSession();
    const [[model]] = (await rowsOf(session, "SELECT ai_model('embedded-static-256')")) as [[JsonObject]];
    expect(model).toMatchObject({
      endpoint: 'embedded-static-256',
      model: 'embedded/static-256@1',
      task: 'llm/v1/embeddings',
      dimensions: 256,
    });
    expect(model.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(await rowsOf(session, 'SELECT count(*) FROM duckserve.usage')).toEqual([[0]]);
  });
});

describe('a data directory', () => {
  it('that could not be opened is not left locked, and opens once it is mended', async () => {
    const dataDir = workplace.directory();
    mkdirSync(join(dataDir, 'answers.lmdb'));
    await expect(workplace.app({ dataDir })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    rmdirSync(join(dataDir, 'answers.lmdb'));
    const app = await workplace.app({ dataDir });
    await expect(workplace.app({ dataDir })).rejects.toMatchObject({
      code: 'STORAGE_ERROR',
      message: expect.stringContaining('already open in this process'),
    });
    expect(await rowsOf(await app.openSession(), 'SELECT 1')).toEqual([[1]]);
  });
});

describe('an endpoint', () => {
  it('may be created by every door, and every door serves it at once, also after a restart', async () => {
    const stub = await workplace.stub();
    const dataDir = workplace.directory();
    const first = await workplace.app({ dataDir });
    const door = await openDoor(first);
    const session = await first.openSession();

    await first.registry.createEndpoint(stubSpec('by-cli', stub), LOCAL_OWNER);
    const made = await door.send('/api/2.0/serving-endpoints', {
      name: 'by-http',
      config: {
        served_entities: [
          {
            external_model: {
              name: 'stub',
              provider: 'openai',
              task: 'llm/v1/chat',
              openai_config: { openai_api_base: stub.openaiUrl },
            },
          },
        ],
      },
    });
    expect(made).toMatchObject({ status: 200, body: { name: 'by-http' } });
    await session.run(
      `CALL duckserve_create_endpoint('by-sql', task => 'llm/v1/chat', provider => 'openai', model => 'stub',
                                      base_url => '${stub.openaiUrl}')`,
    );

    const askAll = async (app: App, prompt: string) => {
      const { chat } = await openDoor(app);
      const sql = await app.openSession();
      for (const name of ['by-cli', 'by-http', 'by-sql']) {
        const said = stubChatText(prompt);
        expect(await chat(name, prompt)).toBe(said);
        expect(await rowsOf(sql, `SELECT ai_query('${name}', '${prompt}')`)).toEqual([[said]]);
      }
    };
    await askAll(first, 'before');
    await first.close();
    await askAll(await workplace.app({ dataDir }), 'after');
  });

  it('goes through one validation: the same mistake has the same reason at every door, in the words of the door', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: workplace.directory() });
    const { send } = await openDoor(app);
    const session = await app.openSession();
    const name = 'not a name';
    const messages = [
      await app.registry.createEndpoint(stubSpec(name, stub), LOCAL_OWNER).then(
        () => 'created',
        (error: Error) => error.message,
      ),
      await send('/api/2.0/serving-endpoints', {
        name,
        config: {
          served_entities: [
            {
              external_model: {
                name: 'stub',
                provider: 'openai',
                task: 'llm/v1/chat',
                openai_config: { openai_api_base: stub.openaiUrl },
              },
            },
          ],
        },
      }).then(({ body }) => body.message),
      await session
        .run(
          `CALL duckserve_create_endpoint('${name}', task => 'llm/v1/chat', provider => 'openai', model => 'stub',
                                          base_url => '${stub.openaiUrl}')`,
        )
        .then(
          () => 'created',
          (error: Error) => error.message,
        ),
    ];
    const inside = 'The endpoint is not valid: name ("not a name"): must be 1 to 63 letters, digits, - or _.';
    const onTheWire = `'name': must be 1 to 63 letters, digits, - or _; got "not a name".`;
    expect(messages).toEqual([inside, onTheWire, inside]);
  });

  it('takes its key from the environment or from a stored secret, and nobody gets to see it', async () => {
    const key = 'sk-very-secret-7781';
    const stub = await workplace.stub({ apiKey: key });
    const dataDir = workplace.directory();
    const first = await workplace.app({ dataDir, env: { STUB_KEY: key } });
    await createStubEndpoint(first, 'env', stub, { apiKey: '{{env/STUB_KEY}}' });
    await createStubEndpoint(first, 'secret', stub, { apiKey: '{{secrets/test/stub}}' });
    const session = await first.openSession();
    expect(await rowsOf(session, "SELECT ai_query('env', 'a')")).toEqual([[stubChatText('a')]]);
    await expect(session.run("SELECT ai_query('secret', 'b')")).rejects.toMatchObject({
      code: 'SECRET_NOT_FOUND',
    });
    await first.secrets.setSecret('test', 'stub', key);
    expect(await rowsOf(session, "SELECT ai_query('secret', 'b')")).toEqual([[stubChatText('b')]]);
    const tables = await rowsOf(session, 'SELECT to_json(e)::VARCHAR FROM duckserve.endpoints e');
    expect(JSON.stringify(tables)).toContain('{{env/STUB_KEY}}');
    const stored = await rowsOf(session, 'SELECT to_json(r)::VARCHAR FROM duckserve.registry r');
    expect(JSON.stringify([tables, stored])).not.toContain(key);
    await first.close();

    const second = await workplace.app({ dataDir });
    const again = await second.openSession();
    expect(await rowsOf(again, "SELECT ai_query('secret', 'c')")).toEqual([[stubChatText('c')]]);
    await expect(again.run("SELECT ai_query('env', 'd')")).rejects.toMatchObject({
      code: 'SECRET_NOT_FOUND',
    });
  });
});

describe('a registered model', () => {
  it('predicts with its own type, and every way to hand it features gives the same', async () => {
    const app = await workplace.app({ dataDir: workplace.directory() });
    const { send } = await openDoor(app);
    const session = await app.openSession();
    const registered = await rowsOf(
      session,
      `CALL duckserve_register_model('penguins', '${join(PENGUINS, 'penguins.onnx')}', alias => 'champion')`,
    );
    expect(registered).toEqual([['penguins', '1', expect.stringMatching(/^[0-9a-f]{64}$/)]]);
    await session.run(
      `CREATE TABLE penguins AS FROM '${join(PENGUINS, 'penguins.csv')}' WHERE split = 'test'`,
    );
    const columns = 'bill_length_mm, bill_depth_mm, flipper_length_mm, body_mass_g';
    const struct = columns
      .split(', ')
      .map((name) => `${name}: ${name}`)
      .join(', ');
    const rows = await rowsOf(
      session,
      `SELECT predict('penguins', ${columns}), predict('penguins', [${columns}]), predict('penguins', {${struct}}),
              ai_query('penguins', {${struct}}), species, typeof(predict('penguins', ${columns}))
       FROM penguins`,
    );
    const first = rows.map((row) => row[0]);
    for (const way of [1, 2, 3]) expect(rows.map((row) => row[way])).toEqual(first);
    expect(new Set(rows.map((row) => row[5]))).toEqual(new Set(['VARCHAR']));
    expect(rows.filter((row) => row[0] === row[4]).length).toBe(85);
    expect(rows.length).toBe(86);

    const records = (await rowsOf(session, `SELECT {${struct}} FROM penguins`)).map(([record]) => record);
    const answered = await send('/serving-endpoints/penguins/invocations', { dataframe_records: records });
    expect(answered).toEqual({ status: 200, body: { predictions: first } });
  });
});

describe('system tables', () => {
  it('are readable in SQL, under their names and as table functions', async () => {
    const app = await workplace.app({ dataDir: workplace.directory() });
    const session = await app.openSession();
    await session.run("SELECT ai_query('echo-chat', 'hello')");
    for (const name of ['endpoints', 'models', 'usage', 'answers', 'functions', 'commands']) {
      const [[count]] = (await rowsOf(session, `SELECT count(*) FROM duckserve.${name}`)) as [[string]];
      expect([name, Number(count) > 0 || name === 'answers']).toEqual([name, true]);
      if (name === 'usage') continue;
      expect(await rowsOf(session, `SELECT count(*) FROM duckserve_${name}()`)).toEqual([[count]]);
    }
    expect(
      await rowsOf(
        session,
        "SELECT name FROM duckserve.functions WHERE name IN ('ai_query', 'predict') ORDER BY 1",
      ),
    ).toEqual([['ai_query'], ['predict']]);
    expect(await rowsOf(session, 'SELECT endpoint, origin, input_count FROM duckserve.usage')).toEqual([
      ['echo-chat', 'library', 1],
    ]);
  });
});

describe('usage', () => {
  it('has exactly one row for each call, also for the calls that fail', async () => {
    const stub = await workplace.stub({
      answer: (body) =>
        JSON.stringify(body).includes('poison')
          ? { status: 400, body: { error: { message: 'no poison', type: 'invalid_request_error' } } }
          : undefined,
    });
    const app = await workplace.app({ dataDir: workplace.directory() });
    await createStubEndpoint(app, 'llm', stub);
    const { chat, send } = await openDoor(app);
    const session = await app.openSession();
    await chat('llm', 'fine');
    await chat('llm', 'fine');
    await send('/v1/chat/completions', { model: 'llm', messages: [{ role: 'user', content: 'poison' }] });
    await send('/v1/chat/completions', { model: 'gone', messages: [{ role: 'user', content: 'x' }] });
    await send('/v1/embeddings', { model: 'llm', input: 'x' });
    await expect(session.run("SELECT ai_query('llm', 'sql poison')")).rejects.toMatchObject({
      code: 'UPSTREAM_REJECTED',
    });
    const rows = await rowsOf(
      session,
      `SELECT origin, endpoint, status_code, error_code, input_count, cached_count, attempts
       FROM duckserve.usage ORDER BY rowid`,
    );
    expect(rows).toEqual([
      ['http', 'llm', 200, null, 1, 0, 1],
      ['http', 'llm', 200, null, 1, 1, 0],
      ['http', 'llm', 400, 'UPSTREAM_REJECTED', 1, 0, 1],
      ['http', 'gone', 404, 'ENDPOINT_NOT_FOUND', 1, 0, 0],
      ['http', 'llm', 400, 'WRONG_TASK', 1, 0, 0],
      ['library', 'llm', 400, 'UPSTREAM_REJECTED', 1, 0, 1],
    ]);
  });

  it('agrees with the ledger of a provider that misbehaves, and every answer is the right one', async () => {
    const stub = await workplace.stub({
      rate429: 0.05,
      rate500: 0.03,
      rateCut: 0.03,
      rateMalformed: 0.03,
      maxParallel: 40,
      retryAfterMs: 20,
      answer: (body) =>
        JSON.stringify(body).includes('poison')
          ? { status: 400, body: { error: { message: 'no poison', type: 'invalid_request_error' } } }
          : undefined,
    });
    const app = await workplace.app({ dataDir: workplace.directory() });
    await createStubEndpoint(app, 'llm', stub);
    const session = await app.openSession();
    const sql = `SELECT prompt, a.response, a.errorMessage
                 FROM (SELECT prompt, ai_query('llm', prompt, failOnError => false) AS a
                       FROM (SELECT CASE WHEN i % 100 = 7 THEN 'poison ' ELSE 'mail ' END || i AS prompt
                             FROM range(1000) t(i)))`;
    const rows = await rowsOf(session, sql);
    expect(rows.length).toBe(1_000);
    let failed = 0;
    for (const [prompt, response, errorMessage] of rows) {
      if (errorMessage === null) expect(response).toBe(stubChatText(String(prompt)));
      else {
        failed++;
        expect(response).toBeNull();
        expect(errorMessage).toMatch(/^(UPSTREAM_REJECTED|UPSTREAM_ERROR|RATE_LIMITED|INVALID_RESPONSE): /);
      }
    }
    expect(
      rows.filter(([prompt, , error]) => String(prompt).startsWith('poison') && error !== null).length,
    ).toBe(10);
    expect(failed).toBeLessThan(20);

    const ledger = stub.ledger();
    expect(ledger.byMisbehaviour.rate429).toBeGreaterThan(0);
    expect(ledger.byMisbehaviour.rateMalformed).toBeGreaterThan(0);
    const [usage] = await rowsOf(
      session,
      'SELECT sum(attempts)::INTEGER, sum(input_count)::INTEGER, count(*) FILTER (error_code IS NOT NULL)::INTEGER FROM duckserve.usage',
    );
    expect(usage).toEqual([ledger.requests, 1_000, failed]);
    // What failed was not kept, what was answered was.
    expect(await rowsOf(session, 'SELECT count(*)::INTEGER FROM duckserve.answers')).toEqual([
      [1_000 - failed],
    ]);
    stub.behave({ rate429: 0, rate500: 0, rateCut: 0, rateMalformed: 0 });
    stub.resetLedger();
    await session.run(sql);
    expect(stub.ledger().requests).toBe(failed);
  });
});
