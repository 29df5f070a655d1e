// A disk that takes no more rows, and a clock that jumps: calls are answered, and what is owed to the ledger is said
// aloud and paid when it can be.
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createStubEndpoint, rowsOf, until, Workplace } from '../app/support.ts';
import { chatBody, type FaultServer, openFaultServer } from './support.ts';

const workplace = new Workplace();
afterEach(async () => {
  vi.restoreAllMocks();
  await workplace.clear();
});

async function openServer(env: Record<string, string> = {}) {
  const stub = await workplace.stub();
  const directory = workplace.directory();
  const server = await openFaultServer(workplace, { dataDir: join(directory, 'data'), env });
  await createStubEndpoint(server.app, 'llm', stub);
  return { stub, directory, server };
}

const metric = async (server: FaultServer, name: string) =>
  Number(new RegExp(`^${name} (\\d+)`, 'm').exec((await server.ask('GET', '/metrics')).text)?.[1]);

describe('a disk that takes no rows', () => {
  it.each([
    ['batched', {}],
    ['durable', { DUCKSERVE_USAGE: 'durable' }],
  ])(
    'leaves calls answered, is heard of in the log and in a metric, and gets every row later (%s)',
    async (_mode, env) => {
      const { directory, server } = await openServer(env);
      const chat = (content: string) => server.ask('POST', '/v1/chat/completions', chatBody('llm', content));
      expect((await chat('before')).status).toBe(200);
      expect(await server.usage()).toHaveLength(1);

      // No journal can be begun where a file stands in place of its directory.
      const journal = join(directory, 'data', 'journal');
      renameSync(journal, `${journal}-away`);
      writeFileSync(journal, '');
      const answers = await Promise.all(Array.from({ length: 20 }, (_, row) => chat(`row ${row}`)));
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      await until(() => server.logged.some((line) => line.includes('usage rows could not be written')));
      expect(await metric(server, 'duckserve_usage_rows_waiting')).toBe(20);

      rmSync(journal);
      renameSync(`${journal}-away`, journal);
      await until(() => server.app.usage.waitingRows === 0);
      expect(await server.usage()).toHaveLength(21);
      expect(await metric(server, 'duckserve_usage_rows_waiting')).toBe(0);
      expect(await metric(server, 'duckserve_usage_rows_lost')).toBe(0);
    },
  );
});

describe('a piece of the journal that is damaged', () => {
  const line = (id: string, more: object = {}) =>
    `${JSON.stringify({
      ...{ request_id: id, call_id: id, request_time: Date.now() * 1_000, requester: 'ann', origin: 'http' },
      ...{
        endpoint: 'llm',
        task: 'llm/v1/chat',
        status_code: 200,
        input_count: 1,
        cached_count: 0,
        attempts: 1,
      },
      ...{ input_tokens: 1, output_tokens: 1, duration_ms: 1, is_streaming: false, ...more },
    })}\n`;
  const half = Buffer.from(line('x')).subarray(0, 100);

  it.each([
    ['a line that was cut', half],
    ['zeros after a loss of power', Buffer.alloc(4_096)],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x80, 0x0a])],
    ['a count that no column can hold', Buffer.from(line('x', { input_tokens: 1e300 }))],
    ['half a letter', Buffer.from(line('x', { endpoint: '\ud800' }))],
    ['JSON that is no row', Buffer.from('{"request_id": {"a": 1}}\n[1, 2]\n"x"\n')],
    ['a line of 20 MB', Buffer.from(line('x', { requester: 'x'.repeat(20_000_000) }))],
    ['nothing', Buffer.alloc(0)],
  ])('takes no other piece along, nor the lines before it: %s', async (_what, damage) => {
    const directory = workplace.directory();
    const journal = join(directory, 'data', 'journal');
    mkdirSync(journal, { recursive: true, mode: 0o700 });
    const pieceOf = (number: number) => join(journal, `usage-000000000000001-1-00000${number}.ndjson`);
    writeFileSync(pieceOf(1), Buffer.concat([Buffer.from(line('before')), damage]));
    writeFileSync(pieceOf(2), line('after'));
    const app = await workplace.app({ dataDir: join(directory, 'data') });
    const session = await app.openSession();
    const ids = await rowsOf(
      session,
      "SELECT request_id FROM duckserve.usage WHERE request_id <> 'x' ORDER BY 1",
    );
    await session.close();
    expect(ids).toEqual([['after'], ['before']]);
  });
});

describe('a clock that jumps', () => {
  it.each([
    ['a day ahead', 86_400_000],
    ['a day back', -86_400_000],
  ])(
    '%s between calls neither fails one, nor frees a limit that is used up, nor loses a row',
    async (_what, jumpMs) => {
      const { stub, server } = await openServer();
      const limits = { rate_limits: [{ key: 'endpoint', calls: 3, renewal_period: 'minute' }] };
      expect((await server.ask('PUT', '/api/2.0/serving-endpoints/llm/ai-gateway', limits)).status).toBe(200);
      const chat = async (content: string) =>
        (await server.ask('POST', '/v1/chat/completions', chatBody('llm', content))).status;
      expect([await chat('one'), await chat('two'), await chat('three'), await chat('four')]).toEqual([
        ...[200, 200, 200, 429],
      ]);
      const now = Date.now.bind(Date);
      vi.spyOn(Date, 'now').mockImplementation(() => now() + jumpMs);
      const after = [await chat('five'), await chat('six'), await chat('seven'), await chat('eight')];
      expect(after.every((status) => status === 200 || status === 429)).toBe(true);
      // Backwards, and for a moment of any kind, no more than the limit of one more window.
      expect(after.filter((status) => status === 200).length).toBeLessThanOrEqual(jumpMs > 0 ? 3 : 0);
      expect(await server.usage('attempts > 0')).toHaveLength(stub.ledger().requests);
      expect(await server.usage()).toHaveLength(8);
    },
  );
});
