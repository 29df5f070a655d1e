// Agents as models, end to end: real HTTP and SQL on an application with a stub provider behind the agent.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createCall, LOCAL_OWNER, type Principal } from '#core/call.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import { packageRoot } from '#storage/package-root.ts';
import type { App } from '../../src/app.ts';
import { type HttpServer, startHttpServer } from '../../src/server/http/server.ts';
import { stubChatText } from '../stub/answers.ts';
import type { StubProvider } from '../stub/provider.ts';
import { createStubEndpoint, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
let app: App;
let stub: StubProvider;
let server: HttpServer;
let rows: UsageRow[];
let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'duckserve-agents-'));
  workplace.onClear(() => rmSync(folder, { recursive: true, force: true }));
  stub = await workplace.stub();
  app = await workplace.app({ dataDir: ':memory:' });
  await createStubEndpoint(app, 'llm', stub);
  rows = [];
  app.serving.onUsage((row) => rows.push(row));
  const { serving, registry, identity, limits, openSession, createBudget } = app;
  server = await startHttpServer(
    { serving, registry, identity, limits, openSession, createBudget, log: SILENT_LOG, version: '1' },
    { port: 0 },
  );
  workplace.onClear(() => server.close());
});
afterEach(() => workplace.clear());

async function register(name: string, source: string, options: object = {}): Promise<void> {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, source);
  await app.registry.registerModel(name, path, { allowCode: true, options: { ...options } });
}

/** Passes the conversation on and says whose it was. */
const PASSING = `
  export async function predict({ messages, parameters, custom_inputs }, { ask, principal }) {
    const { content } = await ask({ endpoint: 'llm', messages, parameters });
    return { content: principal.name + ': ' + content, custom_outputs: { seen: messages.length, custom_inputs } };
  }
  export async function* predictStream({ messages }, { askStream, principal }) {
    yield principal.name + ': ';
    yield* askStream({ endpoint: 'llm', messages });
  }
`;

async function post(path: string, body: object, token?: string): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

async function makeUser(
  name: string,
  endpoints: readonly string[],
): Promise<{ token: string; who: Principal }> {
  const { token } = await app.identity.createToken({ principal: name }, LOCAL_OWNER);
  if (name === 'ann') await app.identity.createToken({ principal: 'bob' }, LOCAL_OWNER);
  for (const endpoint of endpoints) {
    await app.identity.setPermissions(app.registry.getEndpoint(endpoint), [
      { kind: 'user', name: 'ann', level: 'CAN_QUERY' },
      { kind: 'user', name: 'bob', level: 'CAN_QUERY' },
    ]);
  }
  return { token, who: app.identity.authenticate(token) as Principal };
}

const say = (content: string) => [{ role: 'user' as const, content }];
const ofEndpoint = (name: string) => rows.filter(({ endpoint }) => endpoint === name);

describe('an agent at the doors', () => {
  beforeEach(() => register('helper', PASSING));

  it('answers chats of the openai client, whole and as a stream', async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0 });
    const whole = await client.chat.completions.create({ model: 'helper', messages: say('one two three') });
    expect(whole.choices[0]?.message.content).toBe(`local: ${stubChatText('one two three')}`);
    const stream = await client.chat.completions.create({
      model: 'helper',
      messages: say('one two three'),
      stream: true,
    });
    const pieces: string[] = [];
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? '');
    expect(pieces.join('')).toBe(`local: ${stubChatText('one two three')}`);
    expect(pieces.length).toBeGreaterThan(3);
  });

  it.each(['/v1', '/serving-endpoints'])(
    'answers the Responses API at %s, whole and as events',
    async (base) => {
      const client = new OpenAI({ baseURL: `${server.url}${base}`, apiKey: 'unused', maxRetries: 0 });
      const whole = await client.responses.create({ model: 'helper', input: 'hello' });
      expect(whole.output_text).toBe(`local: ${stubChatText('hello')}`);
      const types: string[] = [];
      let text = '';
      for await (const event of await client.responses.create({
        model: 'helper',
        input: 'hello',
        stream: true,
      })) {
        types.push(event.type);
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
      expect(text).toBe(`local: ${stubChatText('hello')}`);
      expect(types[0]).toBe('response.created');
      expect(types.at(-1)).toBe('response.completed');
    },
  );

  it('takes chats and responses at its invocations, with custom inputs, and gives custom outputs back', async () => {
    const path = '/serving-endpoints/helper/invocations';
    const custom = { custom_inputs: { city: 'Ulm' } };
    const seen = { seen: 1, custom_inputs: { city: 'Ulm' } };
    const chat = await post(path, { messages: say('hello'), ...custom });
    expect(chat).toMatchObject({
      status: 200,
      body: { choices: [{ message: { content: `local: ${stubChatText('hello')}` } }], custom_outputs: seen },
    });
    const response = await post(path, { input: say('hello'), ...custom });
    expect(response).toMatchObject({
      status: 200,
      body: {
        object: 'response',
        output: [{ type: 'message', content: [{ text: `local: ${stubChatText('hello')}` }] }],
        custom_outputs: seen,
      },
    });
  });

  it('answers ai_query row by row', async () => {
    const session = await app.openSession();
    const said = await rowsOf(
      session,
      "SELECT ai_query('helper', 'row ' || i) FROM range(3) t(i) ORDER BY i",
    );
    expect(said).toEqual([0, 1, 2].map((i) => [`local: ${stubChatText(`row ${i}`)}`]));
    await session.close();
    expect(ofEndpoint('helper').reduce((sum, { inputCount }) => sum + inputCount, 0)).toBe(3);
    expect(ofEndpoint('llm').reduce((sum, { inputCount }) => sum + inputCount, 0)).toBe(3);
  });

  it('gives its tool calls to the caller, in chats as in responses', async () => {
    await register(
      'caller',
      `export const predict = () => ({ output: [{ type: 'function_call', call_id: 'c1', name: 'look', arguments: '{"x":1}' }] });`,
    );
    const chat = await post('/v1/chat/completions', { model: 'caller', messages: say('go') });
    expect(chat.body).toMatchObject({
      choices: [
        {
          finish_reason: 'tool_calls',
          message: {
            content: null,
            tool_calls: [{ id: 'c1', function: { name: 'look', arguments: '{"x":1}' } }],
          },
        },
      ],
    });
    const response = await post('/v1/responses', { model: 'caller', input: 'go' });
    expect(response.body).toMatchObject({
      output: [{ type: 'function_call', call_id: 'c1', name: 'look', arguments: '{"x":1}' }],
    });
  });

  it('whose stream breaks off ends with an event of the error, and no [DONE]', async () => {
    await register(
      'broken',
      `export async function* predictStream() { yield 'half'; throw new Error('out of words'); }`,
    );
    const textOf = async (path: string, body: object) => {
      const response = await fetch(`${server.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'broken', stream: true, ...body }),
      });
      return response.text();
    };
    const chat = await textOf('/v1/chat/completions', { messages: say('go') });
    expect(chat).toContain('half');
    expect(chat.trim().split('\n').at(-1)).toContain('out of words');
    expect(chat).not.toContain('[DONE]');
    const response = await textOf('/v1/responses', { input: 'go' });
    expect(response).toContain('event: response.failed');
    expect(response).toContain('out of words');
  });

  it('that crashes fails the call it had, and soon answers the next one', async () => {
    await register(
      'fragile',
      `export const predict = ({ messages }) => { if (messages[0].content === 'bad') process.exit(1); return 'fine'; };`,
    );
    await post('/v1/chat/completions', { model: 'fragile', messages: say('good') });
    const bad = await post('/v1/chat/completions', { model: 'fragile', messages: say('bad') });
    expect(bad.status).toBe(502);
    expect(JSON.stringify(bad.body)).toContain('fragile@1');
    const again = () => post('/v1/chat/completions', { model: 'fragile', messages: say('good') });
    const fine = { status: 200, body: { choices: [{ message: { content: 'fine' } }] } };
    await expect.poll(again, { timeout: 10_000 }).toMatchObject(fine);
  });
});

describe('what an agent asks', () => {
  it('is asked as the principal of the call: one who may not ask the model behind is refused', async () => {
    await register('helper', PASSING);
    const ann = await makeUser('ann', ['helper']);
    const refused = await post('/v1/chat/completions', { model: 'helper', messages: say('hi') }, ann.token);
    expect(refused.status).toBe(403);
    expect(JSON.stringify(refused.body)).toContain("may not query endpoint 'llm'");
    expect(stub.ledger().requests).toBe(0);
    await makeUser('ann', ['llm']);
    const allowed = await post('/v1/chat/completions', { model: 'helper', messages: say('hi') }, ann.token);
    expect(allowed).toMatchObject({
      status: 200,
      body: { choices: [{ message: { content: `ann: ${stubChatText('hi')}` } }] },
    });
  });

  it('stands in the usage rows of its caller, with a trail to the call it was asked in', async () => {
    await register('helper', PASSING);
    await register(
      'boss',
      `export const predict = ({ messages }, { ask }) => ask({ endpoint: 'helper', messages });`,
    );
    const { who } = await makeUser('ann', ['helper', 'boss', 'llm']);
    await app.serving.invoke(
      createCall('boss', 'llm/v1/chat', [{ messages: say('hi') }], {
        ...{ id: 'first', principal: who, origin: 'http', clientRequestId: 'mine' },
        usageContext: { team: 'a' },
      }),
    );
    const [boss] = ofEndpoint('boss');
    const [helper] = ofEndpoint('helper');
    const [llm] = ofEndpoint('llm');
    expect(rows).toHaveLength(3);
    for (const row of rows)
      expect(row).toMatchObject({ requester: 'ann', clientRequestId: 'mine', attempts: 1 });
    expect(boss?.usageContext).toEqual({ team: 'a' });
    expect(helper?.usageContext).toEqual({
      ...{ team: 'a', asked_by: 'boss', parent_call_id: 'first', root_call_id: 'first' },
    });
    expect(llm?.usageContext).toEqual({
      ...{ team: 'a', asked_by: 'helper', parent_call_id: helper?.callId, root_call_id: 'first' },
    });
    expect(llm?.apiType).toBe('duckserve/ask');
  });

  it('is summed in SQL by the call that began it all', async () => {
    await register('helper', PASSING);
    const call = { ...{ id: 'the id' }, origin: 'http' as const };
    await app.serving.invoke(createCall('helper', 'llm/v1/chat', [{ messages: say('hi') }], call));
    await app.usage.flush();
    const session = await app.openSession();
    const summed = await rowsOf(
      session,
      `SELECT endpoint, sum(attempts)::INTEGER FROM duckserve.usage
       WHERE coalesce(usage_context['root_call_id'], call_id) = 'the id' GROUP BY endpoint ORDER BY endpoint`,
    );
    expect(summed).toEqual([
      ['helper', 1],
      ['llm', 1],
    ]);
    await session.close();
  });

  it('counts against the limits of its caller', async () => {
    await register('helper', PASSING);
    await app.registry.setGateway('llm', {
      rateLimits: [{ key: 'user', calls: 1, renewalPeriod: 'minute' }],
    });
    const ann = await makeUser('ann', ['helper', 'llm']);
    const bob = await makeUser('bob', []);
    const ask = (token: string) =>
      post('/v1/chat/completions', { model: 'helper', messages: say('hi') }, token);
    expect((await ask(ann.token)).status).toBe(200);
    expect((await ask(ann.token)).status).toBe(429);
    expect((await ask(bob.token)).status).toBe(200);
  });

  it('is paid from the budget of the statement, and what would cross it is not asked', async () => {
    await register('helper', PASSING);
    const session = await app.openSession();
    const statement = "SELECT ai_query('helper', 'row ' || i) FROM range(10) t(i)";
    await expect(session.run(statement, { budget: app.createBudget({ maxCalls: 6 }) })).rejects.toMatchObject(
      { code: 'BUDGET_EXCEEDED' },
    );
    expect(stub.ledger().requests).toBeLessThanOrEqual(5);
    const [result] = await session.run(statement, { budget: app.createBudget({ maxCalls: 20 }) });
    expect(result?.rowCount).toBe(10);
    await session.close();
  });

  it('ends at a depth of eight: an agent that asks itself is told so', async () => {
    await register(
      'mirror',
      `export const predict = ({ messages }, { ask }) => ask({ endpoint: 'mirror', messages });`,
    );
    const { status, body } = await post('/v1/chat/completions', { model: 'mirror', messages: say('hi') });
    expect(status).toBe(400);
    expect(JSON.stringify(body)).toContain('ring');
    expect(ofEndpoint('mirror')).toHaveLength(9);
  });

  it('is cancelled with its caller', async () => {
    const slow = await workplace.stub({ latencyMs: 600_000 });
    await createStubEndpoint(app, 'slow', slow);
    await register(
      'waiting',
      `export const predict = ({ messages }, { ask }) => ask({ endpoint: 'slow', messages });`,
    );
    const controller = new AbortController();
    const call = createCall('waiting', 'llm/v1/chat', [{ messages: say('hi') }], {
      signal: controller.signal,
    });
    const waiting = app.serving.invoke(call);
    waiting.catch(() => {});
    await until(() => slow.ledger().inFlight === 1);
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
    await until(() => slow.ledger().aborted === 1);
  });
});

describe('examples/agent.mjs', () => {
  it('looks orders up when its model asks for that, and says what it has looked at', async () => {
    await app.registry.registerModel('orders', join(packageRoot(), 'examples', 'agent.mjs'), {
      allowCode: true,
    });
    await register(
      'deciding',
      `export const predict = ({ messages }) => messages.at(-1).role === 'tool'
        ? 'It says ' + messages.at(-1).content
        : { tool_calls: [{ id: 'c', type: 'function', function: { name: 'find_order', arguments: '{"number":"4711"}' } }] };`,
    );
    const body = { messages: say('Where is 4711?'), custom_inputs: { model: 'deciding' } };
    const { body: answer } = await post('/serving-endpoints/orders/invocations', body);
    expect(answer).toMatchObject({
      choices: [{ message: { content: expect.stringContaining('night train') }, finish_reason: 'stop' }],
      custom_outputs: { seen: ['4711'] },
    });
  });
});

describe('answers of an agent', () => {
  const COUNTING = `
    let calls = 0;
    export const predict = (request, { principal }) => principal.name + ' ' + ++calls;
  `;
  const askAs = async (who: Principal, extra: object = {}) => {
    const call = createCall('counter', 'llm/v1/chat', [{ messages: say('same') }], {
      ...{ principal: who, parameters: { temperature: 0 }, ...extra },
    });
    const [item] = (await app.serving.invoke(call)).items;
    return item?.ok && 'content' in item.output ? item.output.content : item;
  };

  it('are not kept where nobody asked for it, whatever the temperature and the door', async () => {
    await register('counter', COUNTING);
    expect(await askAs(LOCAL_OWNER)).toBe('local 1');
    expect(await askAs(LOCAL_OWNER)).toBe('local 2');
    const session = await app.openSession();
    const statement = "SELECT ai_query('counter', 'same')";
    expect(await rowsOf(session, statement)).toEqual([['local 3']]);
    expect(await rowsOf(session, statement)).toEqual([['local 4']]);
    await session.close();
    const body = { model: 'counter', messages: say('same'), temperature: 0 };
    expect((await post('/v1/chat/completions', body)).body).toMatchObject({
      choices: [{ message: { content: 'local 5' } }],
    });
  });

  it('are kept for who asks for it, and for nobody else', async () => {
    await register('counter', COUNTING);
    const { who: ann, token } = await makeUser('ann', ['counter']);
    const { who: bob } = await makeUser('bob', []);
    const kept = { cache: 'on', isCacheChosen: true };
    expect(await askAs(ann, kept)).toBe('ann 1');
    expect(await askAs(ann, kept)).toBe('ann 1');
    expect(await askAs(bob, kept)).toBe('bob 2');
    const body = { model: 'counter', messages: say('over http'), cache: 'on' };
    const first = await post('/v1/chat/completions', body, token);
    const again = await post('/v1/chat/completions', body, token);
    expect(first.body).toMatchObject({ choices: [{ message: { content: 'ann 3' } }] });
    expect(again.body).toMatchObject({ choices: [{ message: { content: 'ann 3' } }] });
    const session = await app.openSession({ principal: ann });
    const statement = "SELECT ai_query('counter', 'in sql', cache => 'on')";
    expect(await rowsOf(session, statement)).toEqual([['ann 4']]);
    expect(await rowsOf(session, statement)).toEqual([['ann 4']]);
    await session.close();
  });

  it('are not shared while they are under way', async () => {
    await register(
      'slowly',
      `let calls = 0, waiting = [];
      export const predict = (request, { principal }) => new Promise((resolve) => {
        waiting.push(() => resolve(principal.name));
        if (++calls === 3) for (const each of waiting) each();
      });`,
    );
    const { who: ann } = await makeUser('ann', ['slowly']);
    const { who: bob } = await makeUser('bob', []);
    const asked = [ann, bob, bob].map((principal) =>
      app.serving.invoke(
        createCall('slowly', 'llm/v1/chat', [{ messages: say('same') }], {
          principal,
          parameters: { temperature: 0 },
        }),
      ),
    );
    const answers = await Promise.all(asked);
    expect(
      answers.map(({ items: [item] }) => item?.ok && 'content' in item.output && item.output.content),
    ).toEqual([...['ann', 'bob', 'bob']]);
  });

  it('that failed are not asked for again: an agent may have acted', async () => {
    await register(
      'acting',
      `let calls = 0;
      export const predict = () => { calls++; const error = new Error('call ' + calls); error.code = 'UPSTREAM_ERROR'; throw error; };
      export async function* predictStream() { predict(); yield ''; }`,
    );
    const { status, body } = await post('/v1/chat/completions', { model: 'acting', messages: say('hi') });
    expect(status).toBe(502);
    expect(JSON.stringify(body)).toContain('call 1');
    const streamed = await post('/v1/chat/completions', {
      model: 'acting',
      messages: say('hi'),
      stream: true,
    });
    expect(JSON.stringify(streamed.body)).toContain('call 2');
    expect(ofEndpoint('acting').map(({ attempts }) => attempts)).toEqual([1, 1]);
  });
});
