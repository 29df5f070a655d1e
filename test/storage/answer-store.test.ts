import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Output, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { answerKey } from '#core/fingerprint.ts';
import type { StoredAnswer } from '#core/stores.ts';
import { decodeAnswer, encodeAnswer } from '#storage/answer-encoding.ts';
import { type AnswerStoreOptions, type OpenedAnswerStore, openAnswerStore } from '#storage/answer-store.ts';

let directory: string;
let nowMs: number;
let warnings: string[];
const opened: OpenedAnswerStore[] = [];
const clock: Clock = { now: () => nowMs, random: () => 0.5, sleep: () => Promise.resolve() };
const log = {
  debug() {},
  info() {},
  warn: (_: object, message: string) => void warnings.push(message),
  error: (_: object, message: string) => void warnings.push(message),
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-answers-'));
  nowMs = 1_700_000_000_000;
  warnings = [];
});
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
  rmSync(directory, { recursive: true, force: true });
});

const file = () => join(directory, 'answers.lmdb');

async function open(options: Partial<AnswerStoreOptions> = {}) {
  const store = await openAnswerStore({
    path: file(),
    maxEntries: 1_000,
    ttlMs: Number.POSITIVE_INFINITY,
    memoryEntries: 4,
    clock,
    log,
    ...options,
  });
  opened.push(store);
  return store;
}

function chat(content: string, options: Partial<StoredAnswer> = {}): StoredAnswer {
  return {
    output: { content, finishReason: 'stop' },
    usage: { inputTokens: 3, outputTokens: 5 },
    endpoint: 'e',
    model: 'm',
    task: 'llm/v1/chat',
    createdAtMs: nowMs,
    ...options,
  };
}

function embedding(values: readonly number[]): StoredAnswer {
  return { ...chat(''), task: 'llm/v1/embeddings', output: { embedding: new Float32Array(values) } };
}

describe('the answer store', () => {
  it('gives an answer at once, after a flush, and after opening again', async () => {
    const first = await open();
    first.put('k', chat('hello'));
    expect(first.get('k')).toEqual(chat('hello'));
    await first.flush();
    await first.close();
    const second = await open();
    expect(second.get('k')).toEqual(chat('hello'));
    expect(second.get('other')).toBeUndefined();
  });

  it('gives an answer that left memory but is not on disk yet', async () => {
    const store = await open({ memoryEntries: 1 });
    for (let index = 0; index < 50; index += 1) store.put(`k${index}`, chat(`a${index}`));
    expect(store.get('k0')).toEqual(chat('a0'));
    const flushing = store.flush();
    expect(store.get('k7')).toEqual(chat('a7'));
    await flushing;
    expect(store.get('k9')).toEqual(chat('a9'));
  });

  it('keeps vectors bit for bit', async () => {
    const store = await open({ memoryEntries: 1 });
    store.put('v', embedding([0.1, -0, Number.MIN_VALUE, 1e38, Number.NaN]));
    store.put('w', chat('pushes the vector out of memory'));
    await store.flush();
    expect(store.get('v')?.output).toEqual({
      embedding: new Float32Array([0.1, -0, Number.MIN_VALUE, 1e38, Number.NaN]),
    });
  });

  it('encodes every kind of answer so that it decodes to itself', () => {
    const output: fc.Arbitrary<Output> = fc.oneof(
      fc.record({
        content: fc.option(fc.string({ unit: 'binary' })),
        finishReason: fc.constant('stop' as const),
      }),
      fc.record({ text: fc.string({ unit: 'grapheme' }), finishReason: fc.constant('length' as const) }),
      fc.record({ embedding: fc.float32Array({ maxLength: 40 }) }),
      fc.record({
        prediction: fc.jsonValue({ depthSize: 'small' }).map((value) => JSON.parse(JSON.stringify(value))),
      }),
    );
    const answer = fc.record({
      output,
      usage: fc.record({ inputTokens: fc.nat(), outputTokens: fc.nat() }),
      endpoint: fc.string(),
      model: fc.string(),
      task: fc.constant<Task>('llm/v1/chat'),
      createdAtMs: fc.integer({ min: 0, max: 2 ** 45 }),
    });
    fc.assert(
      fc.property(answer, (each) => {
        const bytes = encodeAnswer(each);
        expect(decodeAnswer(bytes)).toEqual(each);
        expect(decodeAnswer(bytes.subarray(0, 8))).toBeUndefined();
      }),
    );
  });

  it('forgets answers older than the time to live, on disk and in memory', async () => {
    const store = await open({ ttlMs: 1_000, memoryEntries: 1 });
    store.put('old', chat('old'));
    await store.flush();
    nowMs += 600;
    store.put('young', chat('young'));
    await store.flush();
    nowMs += 500;
    expect(store.get('old')).toBeUndefined();
    expect(store.get('young')).toBeDefined();
    expect([...store.entries()].map(([key]) => key)).toEqual(['young']);
    expect(await store.sweep()).toBe(1);
    expect(store.count).toBe(1);
    nowMs += 500;
    expect(store.get('young')).toBeUndefined();
  });

  it('drops the oldest answers when there are too many, and never more than needed', async () => {
    const store = await open({ maxEntries: 100, memoryEntries: 1 });
    for (let index = 0; index < 250; index += 1)
      store.put(`k${index}`, chat(`a${index}`, { createdAtMs: nowMs + index }));
    await store.flush();
    await store.sweep();
    expect(store.count).toBe(100);
    expect(store.get('k149')).toBeUndefined();
    expect(store.get('k150')).toBeDefined();
    expect(store.get('k249')).toBeDefined();
  });

  it('counts an answer that was asked anew by its new age', async () => {
    const store = await open({ maxEntries: 2, memoryEntries: 1 });
    store.put('a', chat('first', { createdAtMs: nowMs }));
    store.put('b', chat('b', { createdAtMs: nowMs + 1 }));
    await store.flush();
    store.put('a', chat('again', { createdAtMs: nowMs + 2 }));
    store.put('c', chat('c', { createdAtMs: nowMs + 3 }));
    await store.flush();
    await store.sweep();
    expect(store.get('a')?.output).toMatchObject({ content: 'again' });
    expect(store.get('b')).toBeUndefined();
    expect(store.count).toBe(2);
  });

  it('stays near its bound of bytes', async () => {
    const store = await open({ maxEntries: 100_000, maxBytes: 100_000 });
    for (let index = 0; index < 500; index += 1) {
      store.put(answerKey('s', String(index)), chat('x'.repeat(900), { createdAtMs: nowMs + index }));
    }
    await store.flush();
    await store.sweep();
    expect(store.count).toBeGreaterThan(70);
    expect(store.count).toBeLessThan(110);
    expect(store.get(answerKey('s', '499'))).toBeDefined();
  });

  it('counts an answer once although it is put again before it is written', async () => {
    const store = await open();
    store.put('a', chat('1'));
    await store.flush();
    store.put('a', chat('2'));
    store.put('b', chat('3'));
    expect(store.count).toBe(2);
    await store.flush();
    expect(store.count).toBe(2);
  });

  it('lists answers in the order of their keys', async () => {
    const store = await open();
    for (const key of ['c', 'a', 'b']) store.put(key, chat(key));
    await store.flush();
    expect([...store.entries()].map(([key]) => key)).toEqual(['a', 'b', 'c']);
  });

  it('clears by endpoint, by model, and all, and says how many', async () => {
    const store = await open({ maxEntries: 10_000 });
    for (let index = 0; index < 5_000; index += 1) {
      store.put(
        `k${index}`,
        chat('x', { endpoint: index % 2 ? 'odd' : 'even', model: index < 10 ? 'm1' : 'm2' }),
      );
    }
    expect(await store.clear({ endpoint: 'odd' })).toBe(2_500);
    expect(store.count).toBe(2_500);
    expect(store.get('k1')).toBeUndefined();
    expect(await store.clear({ endpoint: 'even', model: 'm1' })).toBe(5);
    expect(await store.clear()).toBe(2_495);
    expect(store.count).toBe(0);
    expect(store.get('k4')).toBeUndefined();
  });

  it('is for the eyes of its owner only', async () => {
    await open();
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  });

  it.each([
    ['cut in half', (path: string) => truncateSync(path, Math.floor(statSync(path).size / 2))],
    ['something else', (path: string) => writeFileSync(path, 'not an answer store '.repeat(2_000))],
    ['shorter than its head', (path: string) => truncateSync(path, 100)],
  ])('sets a file aside that is %s, says so, and begins anew', async (_, damage) => {
    const first = await open();
    for (let index = 0; index < 500; index += 1) first.put(`k${index}`, chat(`a${index}`));
    await first.close();
    damage(file());
    const second = await open();
    expect(warnings[0]).toContain('damaged');
    expect(existsSync(`${file()}.damaged`)).toBe(true);
    expect(second.get('k1')).toBeUndefined();
    second.put('k1', chat('anew'));
    await second.close();
    const third = await open();
    expect(third.get('k1')).toEqual(chat('anew'));
  });

  it('costs a process at most once when it is overwritten behind its head, where LMDB cannot be asked', async () => {
    const first = await open();
    for (let index = 0; index < 500; index += 1) first.put(`k${index}`, chat(`a${index}`));
    await first.close();
    const bytes = readFileSync(file());
    bytes.fill(0xff, 8_192);
    writeFileSync(file(), bytes);
    const opener = [
      '--import',
      'tsx',
      fileURLToPath(new URL('./answer-store-opener.ts', import.meta.url)),
      file(),
    ];
    const ends = [spawnSync(process.execPath, opener), spawnSync(process.execPath, opener)];
    expect(ends[1]?.status).toBe(0);
    expect(String(ends[1]?.stdout)).toContain('a store that works');
    expect(existsSync(`${file()}.damaged`)).toBe(true);
  });

  it('has everything a flush acknowledged after SIGKILL in the middle of writing, and is read by others meanwhile', async () => {
    const writer = spawn(
      process.execPath,
      ['--import', 'tsx', fileURLToPath(new URL('./answer-store-writer.ts', import.meta.url)), file()],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let acknowledged = -1;
    let meanwhile: StoredAnswer | undefined;
    const reader = await open({ maxEntries: 1_000_000 });
    await new Promise<void>((resolve) => {
      let text = '';
      writer.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        const complete = text.slice(0, text.lastIndexOf('\n')).split('\n');
        acknowledged = Number(complete.at(-1));
        if (acknowledged > 1_000 && meanwhile === undefined) meanwhile = reader.get(answerKey('kill', '0'));
        if (acknowledged > 3_000) writer.kill('SIGKILL');
      });
      writer.once('close', () => resolve());
    });
    expect(meanwhile).toBeDefined();
    await reader.close();
    const store = await open({ maxEntries: 1_000_000 });
    expect(warnings).toEqual([]);
    const lost = Array.from({ length: acknowledged + 1 }, (_, index) => index).filter(
      (index) => store.get(answerKey('kill', String(index))) === undefined,
    );
    expect(acknowledged).toBeGreaterThan(3_000);
    expect(lost).toEqual([]);
  });

  it('works in memory only, with the same bounds', async () => {
    const store = await open({ path: null, maxEntries: 2, memoryEntries: 10, ttlMs: 1_000 });
    for (const key of ['a', 'b', 'c']) store.put(key, chat(key));
    await store.flush();
    expect(store.count).toBe(2);
    expect([...store.entries()].map(([key]) => key)).toEqual(['b', 'c']);
    expect(await store.clear({ endpoint: 'e' })).toBe(2);
    store.put('d', chat('d'));
    nowMs += 1_000;
    expect(store.get('d')).toBeUndefined();
    expect(await store.sweep()).toBe(1);
  });
});
