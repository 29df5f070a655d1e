// What callers of `duckserve serve` see while providers refuse, hang and fall over: as its own process, over HTTP.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { StubProvider } from '../stub/provider.ts';
import { type Program, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const entity = (name: string, stub: StubProvider, model: object = {}) => ({
  name,
  externalModel: {
    ...{ name, provider: 'openai', task: 'llm/v1/chat', baseUrl: stub.openaiUrl },
    ...model,
  },
});

/** `duckserve serve` with one endpoint `llm` over these entities, all traffic to the first. */
async function serve(
  servedEntities: readonly { readonly name: string }[],
  gateway: object,
  env: Record<string, string> = {},
) {
  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  const routes = servedEntities.map(({ name }, at) => ({
    servedEntityName: name,
    trafficPercentage: at === 0 ? 100 : 0,
  }));
  await app.registry.createEndpoint({ name: 'llm', servedEntities, routes }, LOCAL_OWNER);
  await app.registry.setGateway('llm', gateway);
  await app.close();
  const program = workplace.program(['serve', '--port', '0'], { dataDir, env });
  const [, url = ''] = await program.stdoutMatch(/duckserve listens on (http:\S+)/);
  return { url, program, dataDir };
}

interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

async function ask(url: string, content: string, more: object = {}): Promise<Reply> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'llm', messages: [{ role: 'user', content }], ...more }),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** Ends the server as an operator does, and reads its books. */
async function booksOf({ program, dataDir }: { program: Program; dataDir: string }, sql: string) {
  program.child.kill('SIGTERM');
  await program.ended;
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  return await rowsOf(await app.openSession(), sql);
}

describe('a provider that refuses', () => {
  it('is stood in for at once by the next entity, streamed or not, and both stand in the books', async () => {
    const [busy, spare] = [
      await workplace.stub({ rate429: 1, retryAfterMs: 20_000 }),
      await workplace.stub(),
    ];
    const served = await serve([entity('gpt', busy), entity('backup', spare)], {
      fallback: { enabled: true },
    });
    for (const more of [{}, { stream: true }]) {
      const { status, headers, text } = await ask(served.url, 'hello', { ...more, max_tokens: 20 });
      expect([status, headers.get('served-model-name')]).toEqual([200, 'backup']);
      expect(text).toContain('hello');
    }
    const books = await booksOf(
      served,
      'SELECT served_entity, sum(attempts)::INTEGER FROM duckserve.usage GROUP BY ALL ORDER BY ALL',
    );
    expect(books).toEqual([
      ['backup', spare.ledger().requests],
      ['gpt', busy.ledger().requests],
    ]);
    // The pause that it asked for is kept: the second call did not bother it.
    expect(busy.ledger().requests).toBe(1);
  });

  it('is not stood in for where the endpoint does not want it: the caller is told how long to wait', async () => {
    const [busy, spare] = [
      await workplace.stub({ rate429: 1, retryAfterMs: 40_000 }),
      await workplace.stub(),
    ];
    const { url } = await serve([entity('gpt', busy), entity('backup', spare)], { timeoutMs: 30_000 });
    const { status, headers, text } = await ask(url, 'hello');
    expect([status, spare.ledger().requests]).toEqual([429, 0]);
    expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(39);
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'RATE_LIMITED' } });
  });
});

describe('a provider that hangs', () => {
  it('costs a caller no more than the deadline of the endpoint, and the answer says what was tried', async () => {
    const stub = await workplace.stub({ latencyMs: 60_000 });
    const { url } = await serve([entity('gpt', stub)], { timeoutMs: 300 });
    for (const more of [{}, { stream: true }]) {
      const { status, text } = await ask(url, 'hello', more);
      expect(status).toBe(504);
      expect(text).toContain("gave no answer within 0.3 seconds: 'gpt' was asked once (no answer yet)");
    }
  });
});

describe('more callers than a provider can bear', () => {
  it('are refused at once when they could not be answered in time; those let in are answered', async () => {
    const stub = await workplace.stub({ latencyMs: 100 });
    const { url } = await serve([entity('gpt', stub, { maxConcurrency: 2 })], { timeoutMs: 1500 });
    // So that it is known how long an answer takes.
    for (const text of ['a', 'b', 'c']) expect((await ask(url, text)).status).toBe(200);
    const replies = await Promise.all(Array.from({ length: 200 }, (_, at) => ask(url, `many ${at}`)));
    const of = (status: number) => replies.filter((reply) => reply.status === status);
    expect(of(200).length).toBeGreaterThan(8);
    expect(of(503).length).toBeGreaterThan(100);
    expect(of(200).length + of(503).length + of(504).length).toBe(200);
    for (const { headers, text } of of(503)) {
      expect(headers.get('retry-after')).toMatch(/^\d+$/);
      expect(JSON.parse(text)).toMatchObject({ error: { code: 'OVERLOADED' } });
    }
    // Refused callers have cost the provider nothing.
    expect(stub.ledger().requests).toBeLessThanOrEqual(3 + of(200).length + of(504).length);
  });
});

describe('in durable mode', () => {
  it('every call that was answered is in the books, though the server was killed', async () => {
    const stub = await workplace.stub();
    const served = await serve([entity('gpt', stub)], {}, { DUCKSERVE_USAGE: 'durable' });
    let answered = 0;
    let isKilled = false;
    const caller = async (name: number) => {
      for (let at = 0; !isKilled; at++) {
        const reply = await ask(served.url, `${name} ${at}`, at % 2 ? { stream: true } : {}).catch(
          () => null,
        );
        if (reply?.status === 200 && (at % 2 === 0 || reply.text.includes('[DONE]'))) answered++;
      }
    };
    const callers = Array.from({ length: 8 }, (_, name) => caller(name));
    await until(() => answered >= 100);
    isKilled = true;
    served.program.child.kill('SIGKILL');
    await Promise.all(callers);
    const [[rows]] = (await booksOf(
      served,
      'SELECT count(*)::INTEGER FROM duckserve.usage WHERE status_code = 200',
    )) as [[number]];
    expect(rows).toBeGreaterThanOrEqual(answered);
    expect(rows).toBeLessThanOrEqual(stub.ledger().requests);
  });
});
