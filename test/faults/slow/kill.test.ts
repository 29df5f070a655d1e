// kill -9 of the real server while it answers: what the callers were given, what the provider has counted, and what
// the ledger says after the next start.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createStubEndpoint, type Program, rowsOf, Workplace } from '../../app/support.ts';
import type { StubProvider } from '../../stub/provider.ts';
import { ask, chatBody } from '../support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const CALLERS = 16;

interface Load {
  /** Requests that were answered in full, by the id that their caller gave them. */
  readonly answered: Set<string>;
  /** Answered after this moment (`performance.now()`), to be compared with what was lost. */
  readonly answeredAt: Map<string, number>;
  readonly over: Promise<unknown>;
}

/** Callers who ask one thing after the other until nobody answers any more, or they are refused for good. */
function startLoad(url: string, more: object = {}): Load {
  const answered = new Set<string>();
  const answeredAt = new Map<string, number>();
  const run = async (caller: number) => {
    for (let turn = 0; ; turn++) {
      const id = `${caller}-${turn}`;
      try {
        const body = chatBody('llm', `question ${id}`, more);
        const { status, text } = await ask(`${url}/v1/chat/completions`, 'POST', body, {
          'x-client-request-id': id,
        });
        if (status === 429) return;
        if (status !== 200 || ('stream' in more && !text.includes('[DONE]'))) continue;
        answered.add(id);
        answeredAt.set(id, performance.now());
      } catch {
        return;
      }
    }
  };
  return {
    answered,
    answeredAt,
    over: Promise.all(Array.from({ length: CALLERS }, (_, caller) => run(caller))),
  };
}

async function serveStub(env: Record<string, string> = {}, price?: object) {
  const stub: StubProvider = await workplace.stub({ latencyMs: 3 });
  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  await createStubEndpoint(app, 'llm', stub, price ? { price } : {});
  await app.close();
  const start = async () => {
    const program = workplace.program(['serve', '--port', '0'], { dataDir, env });
    const [, url = ''] = await program.stdoutMatch(/duckserve listens on (http:\S+)/);
    return { program, url };
  };
  return { stub, dataDir, start };
}

async function killUnderLoad(program: Program, load: Load, atLeast: number) {
  await program.until(() => load.answered.size >= atLeast);
  const killedAt = performance.now();
  program.child.kill('SIGKILL');
  await load.over;
  await program.ended;
  return killedAt;
}

/** Ids of the ledger, each as often as it is there; asked of the files by another process of ours. */
async function idsInLedger(dataDir: string): Promise<readonly string[]> {
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  const session = await app.openSession();
  const rows = await rowsOf(
    session,
    'SELECT client_request_id FROM duckserve.usage WHERE client_request_id IS NOT NULL AND status_code = 200',
  );
  await session.close();
  await app.close();
  return rows.map(([id]) => String(id));
}

describe('kill -9 under load', () => {
  it.each([
    ['answers', {}],
    ['streams', { stream: true }],
  ])(
    'loses no row of a call that was answered in durable mode, and has none twice (%s)',
    async (_what, more) => {
      const { dataDir, start } = await serveStub({ DUCKSERVE_USAGE: 'durable' });
      const all = new Set<string>();
      for (let life = 0; life < 2; life++) {
        const { program, url } = await start();
        const load = startLoad(url, more);
        await killUnderLoad(program, load, 200);
        const ids = await idsInLedger(dataDir);
        const inLedger = new Set(ids);
        const lost = [...load.answered].filter((id) => !inLedger.has(id));
        expect(lost).toEqual([]);
        for (const id of load.answered) all.add(id);
      }
      expect(all.size).toBeGreaterThanOrEqual(200);
    },
  );

  it('loses no more than the rows of the last interval otherwise, and has none twice', async () => {
    const { stub, dataDir, start } = await serveStub();
    const { program, url } = await start();
    const load = startLoad(url);
    const killedAt = await killUnderLoad(program, load, 1_000);
    const ids = await idsInLedger(dataDir);
    const inLedger = new Set(ids);
    expect(ids.length).toBe(inLedger.size);
    const lost = [...load.answered].filter((id) => !inLedger.has(id));
    const times = lost.map((id) => killedAt - (load.answeredAt.get(id) ?? 0));
    // An interval, and what a busy machine may add to it. Without the journal all of them would be lost.
    expect(Math.max(0, ...times)).toBeLessThan(1_000);
    expect(lost.length).toBeLessThan(load.answered.size / 2);
    expect(stub.ledger().requests).toBeGreaterThanOrEqual(load.answered.size);
    // Rows of calls that were never answered may be there: they were paid for.
    for (const id of inLedger) expect(id).toMatch(/^\d+-\d+$/);
  });

  it('leaves a budget that goes on where the ledger stands, and is never crossed over several lives', async () => {
    // A word of an answer costs ten cents, and a call holds back two dollars.
    const price = { inputPerMillion: 0, outputPerMillion: 100_000 };
    const amount = 60;
    const { dataDir, start } = await serveStub({ DUCKSERVE_USAGE: 'durable' }, price);
    const setLimit = async (url: string) => {
      const budgets = [{ key: 'endpoint', amount, renewal_period: 'month' }];
      const set = await ask(`${url}/api/2.0/serving-endpoints/llm/ai-gateway`, 'PUT', { budgets });
      expect(set.status, set.text).toBe(200);
    };
    let answered = 0;
    for (let life = 0; life < 3; life++) {
      const { program, url } = await start();
      if (life === 0) await setLimit(url);
      const load = startLoad(url, { max_tokens: 20 });
      if (life < 2) await killUnderLoad(program, load, 5);
      else {
        // Callers stop when they are refused.
        await load.over;
        await program.kill();
      }
      answered += load.answered.size;
      const [spent, rows] = await spentInLedger(dataDir);
      expect(spent).toBeLessThanOrEqual(amount);
      expect(rows).toBeGreaterThanOrEqual(answered);
      if (life === 2) expect(spent).toBeGreaterThan(amount - 2);
    }
  });

  async function spentInLedger(dataDir: string): Promise<[spent: number, answered: number]> {
    const app = await workplace.app({ dataDir: join(dataDir, 'data') });
    const session = await app.openSession();
    const sql = 'SELECT sum(cost)::DOUBLE, count(*) FILTER (status_code = 200)::INT FROM duckserve.usage';
    const [row] = await rowsOf(session, sql);
    await session.close();
    await app.close();
    return [Number(row?.[0]), Number(row?.[1])];
  }
});
