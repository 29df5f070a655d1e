// Several processes behind one address: limits hold across them, and one that is killed takes nobody's rows along.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createStubEndpoint, rowsOf, until, Workplace } from '../../app/support.ts';
import { ask, chatBody } from '../support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const PRICE = { inputPerMillion: 0, outputPerMillion: 100_000 };

async function serveWorkers(env: Record<string, string> = {}) {
  const stub = await workplace.stub({ latencyMs: 5 });
  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  await createStubEndpoint(app, 'llm', stub, { price: PRICE });
  await app.close();
  const program = workplace.program(['serve', '--port', '0', '--workers', '2'], { dataDir, env });
  const [, url = ''] = await program.stdoutMatch(/duckserve listens on (http:\S+)/);
  return { stub, dataDir, program, url };
}

/** Processes whose parent is this one: on Linux alone. */
function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

/** Each request on a connection of its own, so that all workers get some. */
const chat = (url: string, id: string, more: object = {}) =>
  ask(`${url}/v1/chat/completions`, 'POST', chatBody('llm', `question ${id}`, { max_tokens: 20, ...more }), {
    'x-client-request-id': id,
    connection: 'close',
  });

async function ledgerOf(dataDir: string) {
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  const session = await app.openSession();
  const rows = await rowsOf(
    session,
    'SELECT client_request_id, cost::DOUBLE FROM duckserve.usage WHERE status_code = 200',
  );
  await session.close();
  await app.close();
  return {
    ids: rows.map(([id]) => String(id)),
    cost: rows.reduce((sum, [, cost]) => sum + Number(cost), 0),
  };
}

describe.skipIf(process.platform !== 'linux')('two workers', () => {
  it('keep one limit on calls and one budget together, however the callers are spread', async () => {
    const { stub, dataDir, program, url } = await serveWorkers();
    const gateway = `${url}/api/2.0/serving-endpoints/llm/ai-gateway`;
    const calls = 40;
    const rates = { rate_limits: [{ key: 'endpoint', calls, renewal_period: 'minute' }] };
    expect((await ask(gateway, 'PUT', rates)).status).toBe(200);
    const all = await Promise.all(Array.from({ length: 150 }, (_, at) => chat(url, `rate-${at}`)));
    expect(all.filter(({ status }) => status === 200).length).toBe(calls);
    expect(all.every(({ status }) => status === 200 || status === 429)).toBe(true);
    expect(stub.ledger().requests).toBe(calls);

    const spent = (stub.ledger().completionTokens * PRICE.outputPerMillion) / 1e6;
    const amount = spent + 30;
    const budgets = { budgets: [{ key: 'endpoint', amount, renewal_period: 'month' }] };
    expect((await ask(gateway, 'PUT', budgets)).status).toBe(200);
    const more = await Promise.all(
      Array.from({ length: 64 }, (_, at) => chat(url, `money-${at}`, { stream: at % 2 === 0 })),
    );
    expect(more.some(({ status }) => status === 429)).toBe(true);
    const bill = (stub.ledger().completionTokens * PRICE.outputPerMillion) / 1e6;
    expect(bill).toBeLessThanOrEqual(amount);
    expect(bill).toBeGreaterThan(amount - 5);
    program.child.kill('SIGTERM');
    await program.ended;
    const { cost, ids } = await ledgerOf(dataDir);
    expect(cost).toBeCloseTo(bill, 4);
    expect(ids.length).toBe(new Set(ids).size);
  });

  it('lose no row of an answered call in durable mode when one is killed, or the first process is', async () => {
    const { dataDir, program, url } = await serveWorkers({ DUCKSERVE_USAGE: 'durable' });
    const answered = new Set<string>();
    let isOver = false;
    const run = async (caller: number) => {
      for (let turn = 0; !isOver; turn++) {
        const id = `${caller}-${turn}`;
        const status = await chat(url, id).then(
          (response) => response.status,
          () => 0,
        );
        if (status === 200) answered.add(id);
      }
    };
    const callers = Promise.all(Array.from({ length: 12 }, (_, caller) => run(caller)));
    await program.until(() => answered.size >= 60);
    const workers = childrenOf(program.child.pid ?? 0);
    expect(workers.length).toBeGreaterThanOrEqual(2);
    process.kill(workers[0] ?? 0, 'SIGKILL');
    const before = answered.size;
    // Others go on, and a new one takes the place of the one that is gone.
    await program.until(() => answered.size >= before + 60);
    await until(() => childrenOf(program.child.pid ?? 0).length >= workers.length);
    program.child.kill('SIGKILL');
    isOver = true;
    await callers;
    await program.ended;
    // No worker lives on without the first process, holding the port and the files.
    await until(() => workers.slice(1).every((pid) => !isAlive(pid)));
    const { ids } = await ledgerOf(dataDir);
    const inLedger = new Set(ids);
    expect([...answered].filter((id) => !inLedger.has(id))).toEqual([]);
    expect(ids.length).toBe(inLedger.size);
  });

  function isAlive(pid: number): boolean {
    try {
      process.kill(pid, 0);
      return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
    } catch {
      return false;
    }
  }
});
