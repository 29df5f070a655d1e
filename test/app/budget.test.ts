// Limits on calls, tokens and cost: never crossed by what a provider really got, and nothing paid is lost.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createCall } from '#core/call.ts';
import type { StatementOptions } from '#session/session.ts';
import type { App } from '../../src/app.ts';
import type { StubProvider } from '../stub/provider.ts';
import { createStubEndpoint, PENGUINS, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const ASK =
  "SELECT i, ai_query('llm', 'mail ' || i, modelParameters => {max_tokens: 20}) FROM range(200) t(i)";
const PRICE = { inputPerMillion: 500, outputPerMillion: 2_000 };

async function openWithStub(options: { price?: typeof PRICE } = {}) {
  const stub = await workplace.stub({ latencyMs: 2 });
  const app = await workplace.app({ dataDir: workplace.directory() });
  await createStubEndpoint(app, 'llm', stub, options);
  return { stub, app, session: await app.openSession() };
}

const tokensOf = (stub: StubProvider) => stub.ledger().promptTokens + stub.ledger().completionTokens;
const costOf = (stub: StubProvider) =>
  (stub.ledger().promptTokens * PRICE.inputPerMillion +
    stub.ledger().completionTokens * PRICE.outputPerMillion) /
  1e6;

/** The error of a statement under a budget. */
async function refusal(app: App, limits: Parameters<App['createBudget']>[0], options: StatementOptions = {}) {
  const session = await app.openSession();
  return await session.run(ASK, { ...options, budget: app.createBudget(limits) }).then(
    () => undefined,
    (error: { code: string; message: string }) => error,
  );
}

describe('a budget of a statement', () => {
  it('on calls is used up and not crossed; a larger one pays only for the rest', async () => {
    const { stub, app, session } = await openWithStub();
    expect(await refusal(app, { maxCalls: 60 })).toMatchObject({
      code: 'BUDGET_EXCEEDED',
      message:
        'The budget is 60 calls: 60 are spent and 1 more would be needed. Answers so far are kept; raise the limit and run it again to pay only for the rest.',
    });
    expect(stub.ledger().requests).toBe(60);
    expect(await rowsOf(session, 'SELECT count(*) FROM duckserve.answers')).toEqual([[60]]);

    expect(await refusal(app, { maxCalls: 139 })).toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(stub.ledger().requests).toBe(199);
    expect(await refusal(app, { maxCalls: 1 })).toBeUndefined();
    expect(stub.ledger().requests).toBe(200);
    // All is answered: nothing is spent, so nothing is refused.
    expect(await refusal(app, { maxCalls: 0 })).toBeUndefined();
    expect(stub.ledger().requests).toBe(200);
  });

  it('on calls holds while a provider misbehaves: a try again is a call again', async () => {
    const { stub, app } = await openWithStub();
    stub.behave({ rate429: 0.2, rate500: 0.1, rateMalformed: 0.1, retryAfterMs: 5 });
    expect(await refusal(app, { maxCalls: 100 })).toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(stub.ledger().requests).toBe(100);
  });

  it('on tokens is not crossed by what the provider counted, and the message says how much', async () => {
    const { stub, app } = await openWithStub();
    const error = await refusal(app, { maxTokens: 1_500 });
    expect(error).toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(error?.message).toMatch(
      /^The budget is 1500 tokens: \d+ are spent and up to \d+ more would be needed\. Answers so far are kept;/,
    );
    expect(error?.message).toContain(`: ${tokensOf(stub)} are spent`);
    expect(tokensOf(stub)).toBeLessThanOrEqual(1_500);
    // What is held back for one call is all that may be left over.
    expect(tokensOf(stub)).toBeGreaterThan(1_400);
    const { requests } = stub.ledger();
    expect(await refusal(app, { maxTokens: 1_000_000 })).toBeUndefined();
    expect(stub.ledger().requests).toBe(200);
    expect(requests).toBeLessThan(200);
  });

  it('on cost is not crossed by the prices of the endpoint', async () => {
    const { stub, app } = await openWithStub({ price: PRICE });
    const error = await refusal(app, { maxCost: 1.5 });
    expect(error).toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(error?.message).toMatch(
      /^The budget is \$1\.5: \$\d\.\d{6} is spent and up to \$\d\.\d{6} more is asked\./,
    );
    expect(costOf(stub)).toBeLessThanOrEqual(1.5);
    expect(costOf(stub)).toBeGreaterThan(1.3);
    expect(await refusal(app, { maxCost: 100 })).toBeUndefined();
    expect(stub.ledger().requests).toBe(200);
  });

  it('on cost is refused before anything is asked where the price is not known', async () => {
    const { stub, app } = await openWithStub();
    const error = await refusal(app, { maxCost: 5 });
    expect(error).toMatchObject({ code: 'INVALID_PARAMETER' });
    expect(error?.message).toContain("needs the price of 'stub', and endpoint 'llm' has none");
    expect(stub.ledger().requests).toBe(0);
  });
});

describe('a budget of a session', () => {
  it('is set by SET ai_max_calls, counts over statements, and ends with RESET', async () => {
    const { stub, session } = await openWithStub();
    const ask = (from: number, to: number) =>
      `SELECT ai_query('llm', 'mail ' || i) FROM range(${from}, ${to}) t(i)`;
    await session.run('SET ai_max_calls = 30');
    await session.run(ask(0, 20));
    await expect(session.run(ask(20, 40))).rejects.toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(stub.ledger().requests).toBe(30);
    await session.run(ask(0, 30));
    await session.run('RESET ai_max_calls');
    await session.run(ask(0, 40));
    expect(stub.ledger().requests).toBe(40);
    await expect(session.run("SET ai_max_calls = 'many'")).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
    });
  });

  it('may limit tokens and cost as well', async () => {
    const { stub, session } = await openWithStub({ price: PRICE });
    await session.run('SET ai_max_tokens = 500');
    await expect(session.run(ASK)).rejects.toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(tokensOf(stub)).toBeLessThanOrEqual(500);
    await session.run('RESET ai_max_tokens; SET ai_max_cost = 1');
    const before = costOf(stub);
    await expect(session.run(ASK)).rejects.toMatchObject({ code: 'BUDGET_EXCEEDED' });
    expect(costOf(stub) - before).toBeLessThanOrEqual(1);
  });
});

describe('an estimate', () => {
  it('says before anything is asked what is then really asked', async () => {
    const { stub, session } = await openWithStub({ price: PRICE });
    await session.run("SELECT ai_query('llm', 'mail 7', modelParameters => {max_tokens: 20})");
    stub.resetLedger();
    const estimate = await session.estimate(ASK);
    expect(stub.ledger().requests).toBe(0);
    expect(estimate).toMatchObject({ calls: 199, cached: 1, unknown: null });
    expect(estimate.endpoints.map(({ endpoint, model }) => [endpoint, model])).toEqual([['llm', 'stub']]);
    const table = await rowsOf(session, `ESTIMATE ${ASK}`);
    expect(table.map((row) => row.slice(0, 4))).toEqual([
      ['llm', 'stub', 199, 1],
      ['total', null, 199, 1],
    ]);
    await session.run(ASK);
    expect(stub.ledger().requests).toBe(estimate.calls);
    expect(await session.estimate(ASK)).toMatchObject({ calls: 0, cached: 200, cost: 0 });
    // The cost is that of the most the models may write.
    expect(estimate.cost).toBeGreaterThanOrEqual(costOf(stub));
  });

  it('of a write writes nothing, and of a statement without AI is nothing', async () => {
    const { stub, session } = await openWithStub();
    expect(await session.estimate(`CREATE TABLE answered AS ${ASK}`)).toMatchObject({ calls: 200 });
    expect(
      await rowsOf(session, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'answered'"),
    ).toEqual([[0]]);
    expect(await session.estimate('SELECT 42')).toMatchObject({ calls: 0, cost: 0, endpoints: [] });
    expect(stub.ledger().requests).toBe(0);
  });
});

describe('limits of an endpoint', () => {
  const asHttp = (content: string) =>
    createCall('llm', 'llm/v1/chat', [{ messages: [{ role: 'user', content }] }], {
      origin: 'http',
      cache: 'off',
      parameters: { maxTokens: 20 },
    });

  it('in money are not crossed by 64 callers at once, over HTTP and in SQL, and what was paid stands in the books', async () => {
    const { stub, app, session } = await openWithStub({ price: PRICE });
    const amount = 0.8;
    await app.registry.setGateway('llm', {
      budgets: [{ key: 'endpoint', amount, renewalPeriod: 'day' }],
    });
    const outcomes = new Map<string, number>();
    const note = (code: string) => outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
    const caller = async (name: number) => {
      for (let at = 0; at < 6; at++) {
        const { items } = await app.serving.invoke(asHttp(`mail ${name} ${at}`));
        note(items[0]?.ok ? 'ok' : (items[0]?.error.code ?? ''));
      }
    };
    const statement = session.run(ASK).then(
      () => note('statement'),
      (error: { code: string }) => note(`statement ${error.code}`),
    );
    await Promise.all([statement, ...Array.from({ length: 64 }, (_, name) => caller(name))]);
    expect(costOf(stub)).toBeLessThanOrEqual(amount);
    expect(costOf(stub)).toBeGreaterThan(amount * 0.8);
    expect([...outcomes.keys()].toSorted()).toEqual(['BUDGET_EXCEEDED', 'ok', 'statement BUDGET_EXCEEDED']);
    const books = await rowsOf(
      session,
      'SELECT sum(attempts)::INTEGER, round(sum(cost), 6)::DOUBLE FROM duckserve.usage',
    );
    expect(books).toEqual([[stub.ledger().requests, Number(costOf(stub).toFixed(6))]]);
  });

  it('in calls refuse a caller over HTTP at once, and ask the provider nothing', async () => {
    const { stub, app } = await openWithStub();
    await app.registry.setGateway('llm', {
      rateLimits: [{ key: 'endpoint', calls: 5, renewalPeriod: 'minute' }],
    });
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, at) => app.serving.invoke(asHttp(`mail ${at}`))),
    );
    const codes = answers.map(({ items: [item] }) => (item?.ok === false ? item.error.code : 'ok'));
    expect(codes.filter((code) => code === 'ok')).toHaveLength(5);
    expect(new Set(codes)).toEqual(new Set(['ok', 'RATE_LIMIT_EXCEEDED']));
    expect(stub.ledger().requests).toBe(5);
  });

  it('in calls hold for a model that answers inside DuckDB: what is over them waits, and can be cancelled', async () => {
    const app = await workplace.app({ dataDir: workplace.directory() });
    await app.registry.registerModel('penguins', join(PENGUINS, 'penguins.onnx'), {});
    await app.registry.setGateway('penguins', {
      rateLimits: [{ key: 'endpoint', calls: 4, renewalPeriod: 'minute' }],
    });
    const session = await app.openSession();
    const predict = (rows: number) =>
      `SELECT count(predict('penguins', struct_pack(bill_length_mm := 39.1 + i, bill_depth_mm := 18.7, flipper_length_mm := 181.0, body_mass_g := 3750.0))) FROM range(${rows}) t(i)`;
    expect(await rowsOf(session, predict(3))).toEqual([[3]]);
    const controller = new AbortController();
    const waiting = session.run(predict(2), { signal: controller.signal });
    waiting.catch(() => {});
    await until(() => app.serving.queueDepths().some((queue) => queue.waiting > 0));
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'CANCELLED' });
    // One call is left in this minute.
    expect(await rowsOf(session, predict(1))).toEqual([[1]]);
  });
});
