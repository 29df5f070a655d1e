// Everybody at once against one limit, through every door there is: what the provider has counted is the judge.
import { afterEach, describe, expect, it } from 'vitest';
import { createStubEndpoint, until, Workplace } from '../app/support.ts';
import { type Answered, chatBody, type FaultServer, openFaultServer } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const CALLERS = 64;
/** Dollars a million tokens: ten cents a word, so that a few calls are a lot of money. */
const PRICE = { inputPerMillion: 100_000, outputPerMillion: 100_000 };

async function openServer(policies: object) {
  const stub = await workplace.stub({ latencyMs: 5 });
  const server = await openFaultServer(workplace);
  await createStubEndpoint(server.app, 'llm', stub, { price: PRICE });
  const set = await server.ask('PUT', '/api/2.0/serving-endpoints/llm/ai-gateway', policies);
  expect(set.status, set.text).toBe(200);
  return { stub, server };
}

/** Whole answers, streams, other dialects, one after the other until they are refused; gives the refusals. */
async function askAll(server: FaultServer, turns: number): Promise<readonly Answered[]> {
  const ways: readonly ((text: string) => Promise<Answered>)[] = [
    (text) => server.ask('POST', '/v1/chat/completions', chatBody('llm', text, { max_tokens: 20 })),
    (text) =>
      server.ask('POST', '/v1/chat/completions', chatBody('llm', text, { max_tokens: 20, stream: true })),
    (text) => server.ask('POST', '/v1/messages', chatBody('llm', text, { max_tokens: 20 })),
    (text) =>
      server.ask('POST', '/serving-endpoints/llm/invocations', {
        messages: [{ role: 'user', content: text }],
        max_tokens: 20,
      }),
  ];
  const refusals: Answered[] = [];
  const call = async (caller: number) => {
    const ask = ways[caller % ways.length] as (text: string) => Promise<Answered>;
    for (let turn = 0; turn < turns; turn++) {
      const answered = await ask(`caller ${caller} turn ${turn}`);
      if (answered.status === 200) continue;
      refusals.push(answered);
      return;
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, (_, caller) => call(caller)));
  return refusals;
}

/** Rows of a statement, which ends when the test is done with it. */
function askRows(server: FaultServer, rows: number): { readonly over: Promise<unknown>; end(): void } {
  const stop = new AbortController();
  const run = async () => {
    const session = await server.app.openSession();
    const sql = `SELECT ai_query('llm', 'row ' || i, modelParameters => struct_pack(max_tokens := 20)) FROM range(${rows}) t(i)`;
    await session.run(sql, { signal: stop.signal }).catch((error: unknown) => error);
    await session.close();
  };
  return { over: run(), end: () => stop.abort() };
}

describe('64 callers over HTTP and the rows of a statement at once', () => {
  it('never cross a budget in money, use it up, and the ledger says what the provider says', async () => {
    const amount = 150;
    const { stub, server } = await openServer({
      budgets: [{ key: 'endpoint', amount, renewal_period: 'month' }],
    });
    const statement = askRows(server, 200);
    const refusals = await askAll(server, 50);
    await statement.over;
    const { promptTokens, completionTokens, requests } = stub.ledger();
    const bill = ((promptTokens + completionTokens) * PRICE.outputPerMillion) / 1e6;
    expect(bill).toBeLessThanOrEqual(amount);
    expect(bill).toBeGreaterThan(amount - 10);
    expect(refusals.length).toBe(CALLERS);
    for (const refusal of refusals) {
      expect(refusal.status, refusal.text).toBe(429);
      expect(refusal.text).toMatch(/BUDGET_EXCEEDED|budget/i);
    }
    const session = await server.app.openSession();
    const [total] = await session.run(
      'SELECT sum(cost)::DECIMAL(18,4)::DOUBLE, sum(attempts)::INT FROM duckserve.usage',
    );
    expect([...(total?.rows() ?? [])]).toEqual([[expect.closeTo(bill, 4), requests]]);
    await session.close();
  });

  it('never cross a limit on calls: exactly as many reach the provider as may', async () => {
    const calls = 50;
    const { stub, server } = await openServer({
      rate_limits: [{ key: 'endpoint', calls, renewal_period: 'minute' }],
    });
    const statement = askRows(server, 100);
    const refusals = await askAll(server, 5);
    await until(() => stub.ledger().requests === calls);
    for (const refusal of refusals) {
      expect(refusal.status, refusal.text).toBe(429);
      expect(Number(refusal.headers.get('retry-after'))).toBeGreaterThan(0);
    }
    // Nobody can be sure to be refused: on a busy machine some callers have their answers before others begin.
    expect(refusals.length).toBeGreaterThan(0);
    // Rows wait for the next minute; nobody waits for them here.
    statement.end();
    await statement.over;
    expect(stub.ledger().requests).toBe(calls);
  });

  it('cross a limit on tokens by no more than calls in flight were longer than those before them', async () => {
    const tokens = 1_000;
    const { stub, server } = await openServer({
      rate_limits: [{ key: 'endpoint', tokens, renewal_period: 'minute' }],
    });
    const statement = askRows(server, 100);
    const refusals = await askAll(server, 50);
    statement.end();
    await statement.over;
    const { promptTokens, completionTokens } = stub.ledger();
    // What is held back for a call is learned from the calls before; what it used beyond that is owed.
    expect(promptTokens + completionTokens).toBeLessThanOrEqual(tokens * 1.15);
    expect(promptTokens + completionTokens).toBeGreaterThan(tokens / 2);
    expect(refusals.length).toBe(CALLERS);
    expect(new Set(refusals.map(({ status }) => status))).toEqual(new Set([429]));
  });
});
