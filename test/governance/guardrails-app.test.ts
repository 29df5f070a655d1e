// Guardrails end to end: set through the control plane, applied to HTTP requests, streams and rows of statements.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { createStubEndpoint, type Program, rowsOf, Workplace } from '../app/support.ts';
import type { StubProvider } from '../stub/provider.ts';

const CARD = '4111 1111 1111 1111';
const workplace = new Workplace();
let stub: StubProvider;
let server: Program;
let url: string;

const lastText = (body: JsonObject): string => {
  const { messages, prompt } = body;
  if (!Array.isArray(messages)) return String(prompt);
  const last = (messages as readonly Json[]).at(-1);
  return isJsonObject(last) ? String(last.content) : '';
};
/** A judge that finds `bomb`, beside a model that says again what it was told. */
const answer = (body: JsonObject) => {
  const text = lastText(body);
  const isJudge = JSON.stringify(body.messages ?? '').includes('You judge');
  if (body.stream === true) return undefined;
  const content = isJudge
    ? JSON.stringify(
        text.includes('bomb') ? { flagged: true, categories: ['S9'] } : { flagged: false, categories: [] },
      )
    : `You said: ${text}`;
  return {
    body: {
      id: 'x',
      object: 'chat.completion',
      model: 'stub',
      choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 5, completion_tokens: 5, total_tokens: 10 },
    },
  };
};

beforeAll(async () => {
  stub = await workplace.stub({ answer });
  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  for (const name of ['llm', 'judge']) await createStubEndpoint(app, name, stub);
  await app.close();
  server = workplace.program(['serve', '--port', '0'], { dataDir, env: { DUCKSERVE_LOG: 'debug' } });
  url = (await server.stdoutMatch(/duckserve listens on (http:\S+)/))[1] ?? '';
});
afterAll(() => workplace.clear());

async function send(method: string, path: string, body?: object): Promise<{ status: number; text: string }> {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });
  return { status: response.status, text: await response.text() };
}

async function guard(guardrails: object): Promise<void> {
  const gateway = Object.keys(guardrails).length === 0 ? {} : { guardrails };
  const { status, text } = await send('PUT', '/api/2.0/serving-endpoints/llm/ai-gateway', gateway);
  expect(status, text).toBe(200);
}

const ask = (content: string, extra: object = {}) =>
  send('POST', '/serving-endpoints/llm/invocations', { messages: [{ role: 'user', content }], ...extra });

describe('guardrails of an endpoint', () => {
  it('refuse over HTTP in the words of Databricks, and the model is not asked', async () => {
    await guard({ input: { pii: { behavior: 'BLOCK' } } });
    const before = stub.ledger().requests;
    const { status, text } = await ask('I am bob@example.com');
    expect(status).toBe(400);
    const body = JSON.parse(text) as { error_code: string; message: string };
    expect(body.error_code).toBe('BAD_REQUEST');
    expect(JSON.parse(body.message)).toEqual({
      usage: { prompt_tokens: 0, total_tokens: 0 },
      input_guardrail: [
        {
          flagged: false,
          categories: null,
          category_scores: null,
          pii_detection: true,
          anonymized_input: [{ role: 'user', content: 'I am <EMAIL_ADDRESS>' }],
        },
      ],
      finishReason: 'input_guardrail_triggered',
    });
    expect(stub.ledger().requests).toBe(before);
  });

  it('mask what the model gets and what it answers', async () => {
    await guard({ input: { pii: { behavior: 'MASK' } }, output: { pii: { behavior: 'MASK' } } });
    const { text } = await ask(`Card ${CARD}, please`);
    expect(text).toContain('You said: Card <CREDIT_CARD>, please');
    expect(JSON.stringify(stub.requests.at(-1)?.body)).toContain('Card <CREDIT_CARD>, please');
  });

  it('do not give a guarded caller the raw answer that was stored without them', async () => {
    await guard({});
    const raw = await ask(`keep ${CARD}`, { temperature: 0 });
    expect(raw.text).toContain(CARD);
    await guard({ output: { pii: { behavior: 'MASK' } } });
    const masked = await ask(`keep ${CARD}`, { temperature: 0 });
    expect(masked.text).toContain('keep <CREDIT_CARD>');
    expect(masked.text).not.toContain(CARD);
  });

  it('mask streams, whatever the events are', async () => {
    await guard({ output: { pii: { behavior: 'MASK' } } });
    const { status, text } = await ask(`stream ${CARD} again`, { stream: true });
    expect(status).toBe(200);
    const said = [...text.matchAll(/^data: (\{.*\})$/gm)]
      .map(([, json]) => JSON.parse(json ?? '') as { choices?: { delta?: { content?: string } }[] })
      .map(({ choices }) => choices?.[0]?.delta?.content ?? '')
      .join('');
    expect(said).toContain('<CREDIT_CARD>');
    expect(text).not.toContain('1111');
    expect(text.trimEnd()).toMatch(/data: \[DONE\]$/);
  });

  it('let a judge decide, and refuse when it cannot be asked', async () => {
    await guard({ input: { safety: true, judge_endpoint: 'judge' } });
    expect((await ask('how is the weather?')).text).toContain('You said: how is the weather?');
    const { status, text } = await ask('how do I build a bomb?');
    expect(status).toBe(400);
    expect(JSON.parse((JSON.parse(text) as { message: string }).message)).toMatchObject({
      input_guardrail: [{ flagged: true, categories: { indiscriminate_weapons: true } }],
    });
    await send('POST', '/api/2.0/serving-endpoints/judge/config:stop');
    const stopped = await ask('how is the wine?');
    expect(stopped.status).toBe(424);
    expect(stopped.text).toContain("The judge 'judge' of endpoint 'llm' could not be asked");
    await send('POST', '/api/2.0/serving-endpoints/judge/config:start');
  });

  it('leave no personal data in the log', async () => {
    await guard({ input: { pii: { behavior: 'BLOCK' } } });
    await ask('I am bob.secret@example.com');
    server.child.kill('SIGTERM');
    const { stdout, stderr } = await server.ended;
    const log = `${stdout}${stderr}`;
    expect(log).toMatch(/guardrail found personal data/);
    expect(log).not.toContain('bob.secret');
    expect(log).not.toContain(CARD);
  });
});

describe('guardrails on rows of a statement', () => {
  it('refuse a row, mask a row, and note neither in the usage rows', async () => {
    const app = await workplace.app({ dataDir: ':memory:' });
    await createStubEndpoint(app, 'llm', stub);
    await app.registry.setGateway('llm', {
      guardrails: {
        input: { pii: { behavior: 'MASK' }, invalidKeywords: ['wine'] },
        output: { pii: { behavior: 'MASK' } },
      },
    });
    const session = await app.openSession({ principal: LOCAL_OWNER });
    const rows = await rowsOf(
      session,
      `SELECT t, ai_query('llm', t, failOnError => false)
       FROM (VALUES ('plain'), ('I am bob@example.com'), ('red wine')) v(t) ORDER BY t`,
    );
    const shown = JSON.stringify(rows);
    expect(shown).toContain('You said: I am <EMAIL_ADDRESS>');
    expect(shown).toContain("a forbidden keyword 'wine'");
    expect(shown).toContain('You said: plain');
    const usage = JSON.stringify(await rowsOf(session, 'SELECT * FROM duckserve.usage'));
    expect(usage).toContain('GUARDRAIL_TRIGGERED');
    expect(usage).not.toContain('bob@');
    await session.close();
  });
});
