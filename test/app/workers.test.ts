// `duckserve serve --workers 2` as its own processes: the same answers, one ledger, limits that hold over all of
// them, gateways that are started again when they end, and an end without loss.
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import { stubChatText } from '../stub/answers.ts';
import type { StubProvider } from '../stub/provider.ts';
import { type Program, rowsOf, stubSpec, until, Workplace } from './support.ts';

interface Served {
  readonly program: Program;
  readonly url: string;
  readonly dataDir: string;
}

async function serve(workplace: Workplace, endpoints: readonly object[]): Promise<Served> {
  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  for (const spec of endpoints) await app.registry.createEndpoint(spec, LOCAL_OWNER);
  await app.close();
  const flags = ['--port', '0', '--workers', '2', '--drain-seconds', '20'];
  const program = workplace.program(['serve', ...flags], { dataDir, env: { DUCKSERVE_LOG: 'warn' } });
  const [, url = ''] = await program.stdoutMatch(/duckserve listens on (http:\S+)\n/);
  return { program, url, dataDir };
}

/** Processes that the server has started. */
function gatewaysOf({ program: { child } }: Served): number[] {
  const text = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

const chat = (model: string, content: string, more: object = {}) => ({
  model,
  messages: [{ role: 'user' as const, content }],
  ...more,
});

type Reply = { readonly status: number; readonly text: string; readonly id?: string };

/** Status 0: the connection was cut. Without an agent each has a connection of its own, so gateways take turns. */
function send(
  { url }: Pick<Served, 'url'>,
  options: {
    method?: string;
    path?: string;
    body?: unknown;
    headers?: Record<string, string>;
    agent?: Agent;
  },
): Promise<Reply> {
  const { method = 'POST', path = '/v1/chat/completions', body, headers, agent = false } = options;
  const text = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve) => {
    const asked = request(`${url}${path}`, {
      method,
      agent,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...headers },
    });
    asked.on('error', () => resolve({ status: 0, text: '' }));
    asked.on('response', (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (piece) => {
        answer += piece;
      });
      response.on('close', () =>
        resolve({
          status: response.complete ? (response.statusCode ?? 0) : 0,
          text: answer,
          id: String(response.headers['x-request-id']),
        }),
      );
    });
    asked.end(text);
  });
}

const ask = (served: Served, body: object, headers: Record<string, string> = {}) =>
  send(served, { body, headers });

/** So many callers, each on a connection that is kept, until `calls` were made. Gives how often each status came. */
async function load(
  served: Served,
  options: { callers: number; calls: number; body: (index: number) => object },
) {
  const statuses: Record<number, number> = {};
  let next = 0;
  const caller = async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let index = next++; index < options.calls; index = next++) {
      const { status } = await send(served, { body: options.body(index), agent });
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: options.callers }, caller));
  return statuses;
}

/** Enough for both gateways to have met the endpoint. */
async function meet(served: Served, model: string): Promise<void> {
  for (let round = 0; round < 3; round++) {
    const replies = Array.from({ length: 6 }, (_, index) =>
      ask(served, chat(model, `meet ${round} ${index}`)),
    );
    for (const { status } of await Promise.all(replies)) expect(status).toBe(200);
  }
}

async function killOne(served: Served): Promise<void> {
  const [first] = gatewaysOf(served);
  process.kill(first as number, 'SIGKILL');
  await until(() => {
    const now = gatewaysOf(served);
    return now.length === 2 && !now.includes(first as number);
  });
}

describe('two gateways', () => {
  const workplace = new Workplace();
  afterAll(() => workplace.clear());
  let served: Served;
  let stub: StubProvider;
  let narrow: StubProvider;
  /** Ids of calls of which some were tried more than once. */
  const tried: string[] = [];
  beforeAll(async () => {
    stub = await workplace.stub();
    narrow = await workplace.stub({ latencyMs: 10 });
    served = await serve(workplace, [
      stubSpec('llm', stub),
      stubSpec('narrow', narrow, { maxConcurrency: 6 }),
      stubSpec('tiny', narrow, { maxConcurrency: 2 }),
      stubSpec('moving', narrow),
    ]);
  }, 60_000);

  it('answer like one process: chats, streams, embeddings, SQL, the control plane, large headers, refusals', async () => {
    const client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'unused', maxRetries: 0 });
    await meet(served, 'llm');
    for (let index = 0; index < 6; index++) {
      const answer = await client.chat.completions.create(chat('llm', `hello ${index}`));
      expect(answer.choices[0]?.message.content).toBe(stubChatText(`hello ${index}`));
    }
    const stream = await client.chat.completions.create({ ...chat('llm', 'one two three'), stream: true });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toBe(stubChatText('one two three'));
    const model = 'echo-embeddings';
    const { data } = await client.embeddings.create({ model, input: ['a', 'b'] });
    expect(data).toHaveLength(2);

    const statement = { statement: "SELECT ai_query('llm', 'from SQL') AS answer", wait_timeout: '30s' };
    const sql = await send(served, { path: '/api/2.0/sql/statements', body: statement });
    expect(sql.text).toContain(JSON.stringify(stubChatText('from SQL')).slice(1, -1));
    const list = await send(served, { method: 'GET', path: '/api/2.0/serving-endpoints' });
    expect(JSON.parse(list.text).endpoints.map(({ name }: { name: string }) => name)).toContain('llm');
    const large = { 'x-large': 'a'.repeat(25_000) };
    expect((await send(served, { method: 'GET', path: '/health', headers: large })).status).toBe(200);
    expect((await ask(served, chat('nobody', 'x'))).status).toBe(404);
    expect((await ask(served, { ...chat('llm', 'x'), temperature: 'hot' })).status).toBe(400);
  });

  it('and the primary together never ask a provider more at once than it bears', async () => {
    await meet(served, 'narrow');
    narrow.resetLedger();
    const texts = "SELECT ai_query('narrow', 'row ' || i) FROM range(60) t(i)";
    const [sql, statuses] = await Promise.all([
      send(served, { path: '/api/2.0/sql/statements', body: { statement: texts, wait_timeout: '30s' } }),
      load(served, { callers: 24, calls: 200, body: (index) => chat('narrow', `call ${index}`) }),
    ]);
    expect(JSON.parse(sql.text).status.state).toBe('SUCCEEDED');
    expect(statuses).toEqual({ 200: 200 });
    expect(narrow.ledger().requests).toBe(260);
    expect(narrow.ledger().peakInFlight).toBeLessThanOrEqual(6);
    expect(narrow.ledger().peakInFlight).toBeGreaterThan(3);

    // Fewer places than processes.
    narrow.resetLedger();
    const body = (index: number) => chat('tiny', `call ${index}`);
    expect(await load(served, { callers: 12, calls: 60, body })).toEqual({ 200: 60 });
    expect(narrow.ledger().peakInFlight).toBeLessThanOrEqual(2);
  });

  it('both follow an endpoint to another provider with another key, without a call that fails', async () => {
    await meet(served, 'moving');
    const others = await workplace.stub({ apiKey: 'sk-second' });
    const entity = (key: string) => ({
      served_entities: [
        {
          name: 'there',
          external_model: {
            ...{ name: 'stub', provider: 'openai', task: 'llm/v1/chat' },
            openai_config: { openai_api_key_plaintext: key, openai_api_base: others.openaiUrl },
          },
        },
      ],
    });
    const path = '/api/2.0/serving-endpoints/moving/config';
    for (const key of ['sk-first', 'sk-second', 'sk-third']) {
      others.behave({ apiKey: key });
      expect((await send(served, { method: 'PUT', path, body: entity(key) })).status).toBe(200);
      const place = '/api/2.0/serving-endpoints/moving';
      for (let state = 'IN_PROGRESS'; state !== 'NOT_UPDATING'; ) {
        const { text } = await send(served, { method: 'GET', path: place });
        state = JSON.parse(text).state.config_update;
      }
      // They hear of it within milliseconds, which a busy machine can make a few more.
      await meet(served, 'moving');
      const before = others.ledger().requests;
      for (let round = 0; round < 8; round++) {
        expect((await ask(served, chat('moving', `${key} ${round}`))).status).toBe(200);
      }
      expect(others.ledger().requests - before).toBe(8);
    }
  });

  it('miss a caller that leaves, and tell the provider, on the short way and on that through the primary', async () => {
    stub.behave({ eventGapMs: 50 });
    const before = stub.ledger().aborted;
    for (const [index, more] of [{}, { usage_context: { way: 'long' } }].entries()) {
      const controller = new AbortController();
      const response = await fetch(`${served.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(chat('llm', 'a very long story '.repeat(50), { stream: true, ...more })),
        signal: controller.signal,
      });
      await response.body?.getReader().read();
      controller.abort();
      await until(() => stub.ledger().aborted === before + index + 1);
    }
    stub.behave({ eventGapMs: 0 });
  });

  it('leave to the primary what a provider refuses, under the same id, and it is tried again', async () => {
    stub.behave({ rate500: 0.4, seed: 7 });
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, index) => ask(served, chat('llm', `again ${index}`))),
    );
    stub.behave({ rate500: 0 });
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200));
    tried.push(...replies.map(({ id = '' }) => id));
  });

  it('know a token at once that was created on the command line, and refuse it at once when it is revoked', async () => {
    const run = (...args: string[]) => workplace.run(args, served);
    const created = await run('tokens', 'create', '--principal', 'ann', '--admin');
    const token = created.stdout.trim();
    expect(token).toMatch(/^dsk_/);
    const auth = { authorization: `Bearer ${token}` };
    const statuses = async (headers: Record<string, string>) => {
      const replies = Array.from({ length: 8 }, (_, index) =>
        ask(served, chat('llm', `key ${index}`), headers),
      );
      return new Set((await Promise.all(replies)).map(({ status }) => status));
    };
    expect(await statuses(auth)).toEqual(new Set([200]));
    expect(await statuses({})).toEqual(new Set([401]));
    const [{ token_id: id }] = JSON.parse((await run('tokens', 'list', '--format', 'json')).stdout);
    expect((await run('tokens', 'revoke', id)).code).toBe(0);
    expect(await statuses(auth)).toEqual(new Set([401]));
  });

  it('end on SIGTERM when what is under way is done; every call is in the ledger, and the output is one line', async () => {
    const { stdout } = await workplace.run(['tokens', 'create', '--principal', 'ann', '--admin'], served);
    const headers = { authorization: `Bearer ${stdout.trim()}` };
    stub.behave({ eventGapMs: 20 });
    const streams = Array.from({ length: 4 }, () =>
      ask(served, chat('llm', 'finish', { stream: true }), headers),
    );
    const { requests } = stub.ledger();
    await until(() => stub.ledger().requests === requests + 4);
    const gateways = gatewaysOf(served);
    served.program.child.kill('SIGTERM');
    for (const { text } of await Promise.all(streams)) expect(text).toMatch(/data: \[DONE\]\n\n$/);
    const ended = await served.program.ended;
    expect(ended).toMatchObject({ code: 0, stdout: `duckserve listens on ${served.url}\n` });
    expect(ended.stderr).not.toMatch(/dsk_|sk-first|sk-second|sk-third/);
    for (const pid of gateways) expect(() => process.kill(pid, 0)).toThrow();

    const app = await workplace.app({ dataDir: join(served.dataDir, 'data') });
    const session = await app.openSession();
    const attempts = (where: string) =>
      rowsOf(session, `SELECT sum(attempts)::INTEGER FROM duckserve.usage WHERE ${where}`);
    expect(await attempts("endpoint = 'llm'")).toEqual([[stub.ledger().requests]]);
    expect(await attempts("endpoint = 'narrow'")).toEqual([[260 + 18]]);
    const ids = tried.map((id) => `'${id}'`).join(', ');
    const counts = `count(DISTINCT call_id)::INTEGER, count(*) FILTER (status_code = 200)::INTEGER,
      max(requests.ofCall)::INTEGER > 1`;
    const ofTried = `SELECT ${counts} FROM duckserve.usage
      JOIN (SELECT call_id, sum(attempts) AS ofCall FROM duckserve.usage GROUP BY ALL) requests USING (call_id)
      WHERE call_id IN (${ids})`;
    expect(await rowsOf(session, ofTried)).toEqual([[20, 20, true]]);
    const cancelled = "SELECT count(*)::INTEGER FROM duckserve.usage WHERE error_code = 'CANCELLED'";
    expect(await rowsOf(session, cancelled)).toEqual([[2]]);
  });
});

describe('limits over two gateways', () => {
  const workplace = new Workplace();
  afterAll(() => workplace.clear());
  let served: Served;
  let rated: StubProvider;
  let paid: StubProvider;
  const PRICE = { inputPerMillion: 1_000_000, outputPerMillion: 1_000_000 };
  beforeAll(async () => {
    rated = await workplace.stub();
    paid = await workplace.stub({ latencyMs: 5 });
    const rateLimits = [{ key: 'endpoint', calls: 300, renewalPeriod: 'minute' }];
    const budgets = [{ key: 'endpoint', amount: 4_000, renewalPeriod: 'day' }];
    served = await serve(workplace, [
      { ...stubSpec('rated', rated), aiGateway: { rateLimits } },
      { ...stubSpec('paid', paid, { price: PRICE }), aiGateway: { budgets } },
    ]);
  }, 60_000);

  it('admit as many calls a minute as one process would, to the call', async () => {
    const body = (index: number) => chat('rated', `call ${index}`);
    const first = await load(served, { callers: 32, calls: 600, body });
    expect(rated.ledger().requests).toBe(first[200]);
    expect(Object.keys(first).sort()).toEqual(['200', '429']);
    expect(first[200]).toBeLessThanOrEqual(300);
    // What one gateway had on lease and did not use comes back within a second, and is there for all.
    let good = first[200] ?? 0;
    await until(() => {
      void ask(served, body(1_000)).then(({ status }) => {
        if (status === 200) good++;
      });
      return good >= 300;
    });
    expect((await load(served, { callers: 8, calls: 40, body }))[200]).toBeUndefined();
    expect(rated.ledger().requests).toBe(300);
  });

  it('never spend more than a budget, also when a gateway is killed under load, and others do not notice', async () => {
    const body = (index: number) => chat('paid', `buy ${index}`, { max_tokens: 20 });
    const spent = () => paid.ledger().promptTokens + paid.ledger().completionTokens;
    const loading = load(served, { callers: 16, calls: 1_500, body });
    await until(() => paid.ledger().requests > 60);
    await killOne(served);
    const statuses = await loading;
    // Callers that were connected to the dead one lose what was under way, and come again.
    expect(statuses[0] ?? 0).toBeLessThanOrEqual(16);
    expect(Object.keys(statuses).every((status) => ['0', '200', '429'].includes(status))).toBe(true);
    expect(statuses[429]).toBeGreaterThan(0);
    expect(spent()).toBeLessThanOrEqual(4_000);
    // What the dead one had on lease is lost until the next start: a quarter of what was left at most, twice.
    expect(spent()).toBeGreaterThan(2_000);
    await load(served, { callers: 16, calls: 100, body });
    expect(spent()).toBeLessThanOrEqual(4_000);
  });

  it('end with the primary: when it is killed, no gateway is left', async () => {
    const gateways = gatewaysOf(served);
    expect(gateways).toHaveLength(2);
    await served.program.kill();
    const isAlive = (pid: number) => {
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    };
    await until(() => !gateways.some(isAlive));
    const app = await workplace.app({ dataDir: join(served.dataDir, 'data') });
    const session = await app.openSession();
    const [[rows]] = (await rowsOf(
      session,
      "SELECT sum(attempts)::INTEGER FROM duckserve.usage WHERE endpoint = 'rated'",
    )) as [[Json]];
    expect(rows).toBe(300);
  });
});
