// Limits through the real application, the HTTP door and the command line.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createCall, LOCAL_OWNER } from '#core/call.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type App, openApp } from '../../src/app.ts';
import { type HttpServer, startHttpServer } from '../../src/server/http/server.ts';
import { cli } from '../cli/fake-app.ts';
import { type StubProvider, startStubProvider } from '../stub/provider.ts';
import { user } from './limits-support.ts';

let directory: string;
let app: App;
let stub: StubProvider;
let server: HttpServer;

async function open(): Promise<void> {
  app = await openApp({ dataDir: directory, env: {} });
  const { serving, registry, identity, limits, openSession, createBudget } = app;
  server = await startHttpServer(
    { serving, registry, identity, limits, openSession, createBudget, log: SILENT_LOG, version: '1' },
    { port: 0 },
  );
}

async function close(): Promise<void> {
  await server.close();
  await app.close();
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-limits-'));
  stub = await startStubProvider();
  await open();
});
afterEach(async () => {
  await close();
  await stub.close();
  rmSync(directory, { recursive: true, force: true });
});

interface Body {
  readonly message: string;
  readonly error: object;
  readonly usage: readonly object[];
}

async function ask(method: string, path: string, body?: unknown) {
  const response = await fetch(`${server.url}${path}`, {
    method,
    ...(body === undefined
      ? {}
      : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: JSON.parse(text) as Body };
}

const PATH = '/api/2.0/duckserve/limits';
const chat = (model: string) => ({ model, max_tokens: 10, messages: [{ role: 'user', content: 'hello' }] });

function createPaid(name: string): Promise<unknown> {
  const externalModel = {
    name: 'stub-model',
    provider: 'openai',
    task: 'llm/v1/chat',
    baseUrl: stub.openaiUrl,
    // A dollar a token: the smallest call is more than a few dollars.
    price: { inputPerMillion: 1_000_000, outputPerMillion: 1_000_000 },
  };
  return app.registry.createEndpoint({ name, servedEntities: [{ externalModel }] }, LOCAL_OWNER);
}

describe('limits of the workspace', () => {
  it('are set, shown and refused over HTTP, and hold for what is asked there', async () => {
    const rules = { rate_limits: [{ key: 'user', calls: 2, renewal_period: 'minute' }] };
    expect((await ask('PUT', PATH, rules)).body).toEqual({ ...rules, budgets: [], usage: [] });
    for (const status of [200, 200, 429]) {
      expect((await ask('POST', '/v1/chat/completions', chat('echo-chat'))).status).toBe(status);
    }
    const refused = await ask('POST', '/v1/chat/completions', chat('echo-chat'));
    expect(refused.body.error).toMatchObject({ type: 'rate_limit_error', code: 'RATE_LIMIT_EXCEEDED' });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await ask('GET', PATH)).body.usage).toEqual([
      {
        limit_type: 'calls_per_minute',
        endpoint: null,
        key: 'user',
        principal: 'local',
        limit: 2,
        current: 2,
        held: 0,
      },
    ]);
    const wrong = await ask('PUT', PATH, { rate_limits: [{ key: 'planet' }] });
    expect([wrong.status, wrong.body.message]).toEqual([400, expect.stringContaining('planet')]);
    expect((await ask('PUT', PATH, {})).status).toBe(200);
    expect((await ask('POST', '/v1/chat/completions', chat('echo-chat'))).status).toBe(200);
  });

  it('are the business of administrators', async () => {
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    for (const method of ['GET', 'PUT']) {
      const response = await fetch(`${server.url}${PATH}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(method === 'PUT' ? { body: '{}' } : {}),
      });
      expect(response.status).toBe(403);
    }
  });

  it('on money know after a restart what was spent before it, also by streams and statements', async () => {
    await createPaid('paid');
    await app.limits.setRules({ budgets: [{ key: 'user', amount: 10_000, renewal_period: 'month' }] });
    const answered = await ask('POST', '/v1/chat/completions', chat('paid'));
    expect(answered.status).toBe(200);
    const input = { messages: [{ role: 'user' as const, content: 'stream' }] };
    const { events } = await app.serving.stream(
      createCall('paid', 'llm/v1/chat', [input], { parameters: { maxTokens: 10 } }),
    );
    for await (const _event of events);
    const session = await app.openSession();
    await session.run("SELECT ai_query('paid', 'row ' || i) FROM range(3) t(i)");
    await session.close();
    const spentOf = () => app.limits.readings().find(({ type }) => type === 'cost_per_month');
    const before = spentOf();
    expect(before?.held).toBe(0);
    expect(before?.current).toBeGreaterThan(0);
    await close();
    await open();
    expect(spentOf()).toBeUndefined();
    // Whether it is admitted or not: the ledger has been read then.
    await app.limits
      .meterOf({ principal: LOCAL_OWNER, origin: 'http' }, app.registry.getEndpoint('paid'))
      ?.reserve({ calls: 0, tokens: 0, cost: 0 });
    expect(spentOf()?.current).toBeCloseTo(before?.current ?? 0, 6);
    const ledger = await (await app.openSession()).run('SELECT sum(cost)::DOUBLE FROM duckserve.usage');
    expect([...(ledger[0]?.rows() ?? [])][0]?.[0]).toBeCloseTo(before?.current ?? 0, 6);
  });

  it('on money are not crossed by 64 callers at once, over HTTP and in statements', async () => {
    await createPaid('paid');
    await app.limits.setRules({ budgets: [{ key: 'endpoint', amount: 300, renewal_period: 'day' }] });
    const input = { messages: [{ role: 'user' as const, content: 'hello' }] };
    const invoke = async (index: number) => {
      const inputs = [input, { messages: [{ role: 'user' as const, content: `hello ${index}` }] }];
      const { items } = await app.serving.invoke(
        createCall('paid', 'llm/v1/chat', inputs, {
          principal: { ...user(`u${index}`), isAdmin: true },
          origin: index % 2 === 0 ? 'http' : 'sql',
          cache: 'off',
          parameters: { maxTokens: 64 },
        }),
      );
      return items.map((item) => (item.ok ? 'answered' : item.error.code));
    };
    const outcomes = (await Promise.all(Array.from({ length: 64 }, (_, index) => invoke(index)))).flat();
    expect(new Set(outcomes)).toEqual(new Set(['answered', 'BUDGET_EXCEEDED']));
    const [reading] = app.limits.readings().filter(({ type }) => type === 'cost_per_day');
    expect(reading?.held ?? 0).toBe(0);
    expect(reading?.current).toBeGreaterThan(0);
    expect(reading?.current).toBeLessThanOrEqual(300);
    const [billed] = await (await app.openSession()).run('SELECT sum(cost)::DOUBLE FROM duckserve.usage');
    expect([...(billed?.rows() ?? [])][0]?.[0]).toBeCloseTo(reading?.current ?? 0, 6);
  });
});

describe('duckserve limits', () => {
  it('sets what a file says, shows it, and clears it', async () => {
    const file = join(directory, 'limits.json');
    const document = { rate_limits: [{ calls: 3, renewal_period: 'minute' }] };
    writeFileSync(file, JSON.stringify(document));
    const set = await cli(['limits', 'set', file]);
    expect([set.code, set.asked[0]]).toEqual([0, ['setRules', document]]);
    expect((await cli(['limits', 'clear'])).asked[0]).toEqual(['setRules', {}]);
    const shown = await cli(['limits', '--format', 'json']);
    expect(JSON.parse(shown.stdout)).toEqual({ rate_limits: [], budgets: [], usage: [] });
  });

  it('shows what is used of each limit in a table', async () => {
    const usage = [
      {
        limit_type: 'calls_per_minute',
        endpoint: null,
        key: 'user',
        principal: 'ann',
        limit: 60,
        current: 7,
        held: 0,
      },
      {
        limit_type: 'cost_per_day',
        endpoint: 'llm',
        key: 'user',
        principal: 'ann',
        limit: 5,
        current: 1.25,
        held: 0,
        renews_at: 'soon',
      },
    ];
    const limits = {
      rules: {
        rateLimits: [
          { key: 'user' as const, calls: 60, renewalPeriod: 'minute' as const },
          { key: 'endpoint' as const, tokens: 9, renewalPeriod: 'minute' as const },
        ],
        budgets: [],
      },
      readings: () =>
        usage.map(({ limit_type: type, renews_at: renewsAt, ...rest }) => ({
          ...rest,
          type,
          ...(renewsAt === undefined ? {} : { renewsAtMs: START }),
        })) as never,
      setRules: async () => ({ rateLimits: [], budgets: [] }),
    };
    const { stdout } = await cli(['limits', 'show'], {
      openApp: async () => ({ limits, close: async () => {} }) as never,
    });
    const cells = stdout
      .split('\n')
      .filter((line) => line.startsWith('│'))
      .map((line) =>
        line
          .split('│')
          .map((cell) => cell.trim())
          .slice(1, -1),
      );
    expect(cells.slice(1)).toEqual([
      ['all endpoints', 'ann', '60', 'calls a minute', '7', ''],
      ['all endpoints', 'everybody', '9', 'tokens a minute', '0', ''],
      ['llm', 'ann', '$5', 'day', '$1.250000', '2026-01-01T00:00:00.000Z'],
    ]);
  });

  it('says what is wrong with a file', async () => {
    const missing = await cli(['limits', 'set', join(directory, 'nothing.json')]);
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('nothing.json')]);
    const file = join(directory, 'broken.json');
    writeFileSync(file, '{"rate_limits": [');
    expect((await cli(['limits', 'set', file])).stderr).toContain('is not JSON');
    writeFileSync(file, '[]');
    expect((await cli(['limits', 'set', file])).stderr).toContain('must hold a JSON object');
  });
});

const START = Date.UTC(2026, 0, 1);
