// Answers already paid for: what is asked again and what is not, over statements, restarts and a killed process.
import { afterEach, describe, expect, it } from 'vitest';
import { stubChatText } from '../stub/answers.ts';
import { createStubEndpoint, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

/** `rows` different prompts. */
function ask(rows: number, more = ''): string {
  return `SELECT 'mail ' || i AS prompt, ai_query('llm', 'mail ' || i${more}) AS said FROM range(${rows}) t(i) ORDER BY i`;
}

async function openWithStub(dataDir = workplace.directory()) {
  const stub = await workplace.stub();
  const app = await workplace.app({ dataDir });
  await createStubEndpoint(app, 'llm', stub);
  return { stub, app, session: await app.openSession(), dataDir };
}

describe('an answer already paid for', () => {
  it('is not asked again: not by the next statement, not by another session, not after a restart', async () => {
    const { stub, app, session, dataDir } = await openWithStub();
    const first = await rowsOf(session, ask(300));
    for (const [prompt, said] of first) expect(said).toBe(stubChatText(String(prompt)));
    expect(stub.ledger().requests).toBe(300);
    expect(await rowsOf(session, ask(300))).toEqual(first);
    expect(await rowsOf(await app.openSession(), ask(300))).toEqual(first);
    await app.close();

    const later = await workplace.app({ dataDir });
    expect(await rowsOf(await later.openSession(), ask(300))).toEqual(first);
    expect(stub.ledger().requests).toBe(300);
  });

  it('is asked once for equal rows, and again under other parameters', async () => {
    const { stub, session } = await openWithStub();
    const same = "SELECT DISTINCT ai_query('llm', 'the same') FROM range(5000)";
    expect(await rowsOf(session, same)).toEqual([[stubChatText('the same')]]);
    expect(stub.ledger().requests).toBe(1);
    await session.run("SELECT ai_query('llm', 'the same', modelParameters => {max_tokens: 3})");
    expect(stub.ledger().requests).toBe(2);
  });

  it('is forgotten by CALL duckserve_clear_answers, of one endpoint or of all', async () => {
    const { stub, app, session } = await openWithStub();
    await createStubEndpoint(app, 'other', stub, { name: 'another-model' });
    await session.run(ask(20));
    await session.run("SELECT ai_query('other', 'x')");
    expect(await rowsOf(session, "CALL duckserve_clear_answers('llm')")).toEqual([[20]]);
    stub.resetLedger();
    await session.run("SELECT ai_query('other', 'x')");
    expect(stub.ledger().requests).toBe(0);
    await session.run(ask(20));
    expect(stub.ledger().requests).toBe(20);
    expect(await rowsOf(session, 'CALL duckserve_clear_answers()')).toEqual([[21]]);
    expect(await rowsOf(session, 'SELECT count(*) FROM duckserve.answers')).toEqual([[0]]);
  });
});

describe('the cache mode', () => {
  it('of a call decides what is read and what is kept', async () => {
    const { stub, session } = await openWithStub();
    const requestsOf = async (sql: string) => {
      const before = stub.ledger().requests;
      await session.run(sql);
      return stub.ledger().requests - before;
    };
    const modes = ['off', 'off', 'read', 'read', 'write', 'write', 'read', 'on', 'off'];
    const asked: number[] = [];
    for (const mode of modes) asked.push(await requestsOf(ask(10, `, cache => '${mode}'`)));
    // off and read keep nothing, so all are asked until `write`; that asks again itself, and then `read` finds them.
    expect(asked).toEqual([10, 10, 10, 10, 10, 10, 0, 0, 10]);
  });

  it('of a session is set by SET ai_cache and undone by RESET; a call may say otherwise', async () => {
    const { stub, app, session } = await openWithStub();
    await session.run("SET ai_cache = 'off'");
    await session.run(ask(10));
    await session.run(ask(10));
    expect(stub.ledger().requests).toBe(20);
    await session.run(ask(10, ", cache => 'on'"));
    await session.run(ask(10, ", cache => 'on'"));
    expect(stub.ledger().requests).toBe(30);
    await session.run('RESET ai_cache');
    await session.run(ask(10));
    await (await app.openSession()).run(ask(10));
    expect(stub.ledger().requests).toBe(30);
    await expect(session.run("SET ai_cache = 'sometimes'")).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      message: "ai_cache must be one of on, off, read, write, it is 'sometimes'.",
    });
  });
});

describe('a statement that was killed', () => {
  it('pays only for the rest when it is run again', { timeout: 60_000 }, async () => {
    const total = 2_000;
    const maxConcurrency = 32;
    const stub = await workplace.stub({ latencyMs: 20 });
    const dataDir = workplace.directory();
    await workplace.run(
      // biome-ignore format: one flag and its value belong together
      ['endpoints', 'create', 'llm', '--task', 'llm/v1/chat', '--provider', 'openai', '--model', 'stub',
       '--base-url', stub.openaiUrl, '--max-concurrency', String(maxConcurrency)],
      { dataDir },
    );
    const args = ['sql', ask(total), '--format', 'jsonl'];
    const killed = workplace.program(args, { dataDir });
    killed.child.stdin.end();
    await killed.until(() => (stub.ledger().byStatus[200] ?? 0) >= total / 2);
    killed.child.kill('SIGKILL');
    expect(await killed.ended).toMatchObject({ signal: 'SIGKILL', stdout: '' });
    await until(() => stub.ledger().inFlight === 0);
    const paidBefore = stub.ledger().requests;
    expect(paidBefore).toBeLessThan(total);

    const again = await workplace.run(args, { dataDir });
    expect(again).toMatchObject({ code: 0 });
    const rows = again.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { prompt: string; said: string });
    expect(rows.length).toBe(total);
    for (const { prompt, said } of rows) expect(said).toBe(stubChatText(prompt));
    const paidTwice = stub.ledger().requests - total;
    console.log(`killed after ${paidBefore} of ${total} requests; ${paidTwice} were paid twice`);
    // In flight when it died, and answered before the store's next write to disk: a hundred on a quiet machine, more
    // where the writer gets no processor. Without the store it would be all of `paidBefore`, a thousand.
    expect(paidTwice).toBeLessThan(paidBefore / 2);

    const third = await workplace.run(args, { dataDir });
    expect(third.stdout).toBe(again.stdout);
    expect(stub.ledger().requests).toBe(total + paidTwice);
  });
});
