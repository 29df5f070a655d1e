// The llama.cpp engine on models that are made here: several requests in one context, kept beginnings, tools, broken
// files. The models answer nonsense, always the same; what is looked at is that it is the same. TinyLlama: llama.test.ts.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ChatInput, ChatMessage, Parameters, StreamEvent } from '#core/call.ts';
import type { ModelVersion, Target } from '#core/endpoint.ts';
import { type Log, SILENT_LOG } from '#core/log.ts';
import type { Batch, EngineContext, Runner } from '#engines/engine.ts';
import { readGgufHead } from '#engines/llama/gguf-file.ts';
import { llamaEngine } from '#engines/llama/llama.ts';
import { knowsTools } from '#engines/llama/tools.ts';
import { inPromptOrder } from '#serving/prompt-order.ts';
import { expectCode } from './contract.ts';
import { type TinyModel, TOOL_TEMPLATE, tinyGguf, writeTinyModel } from './llama-models.ts';

/** Half a minute on free cores, minutes beside other tests: `npm test` leaves them to the run with the real model. */
const isAsked = process.env.DUCKSERVE_TEST_LLAMA === '1';
if (!isAsked) process.stderr.write('llama-models.test.ts: skipped; run with DUCKSERVE_TEST_LLAMA=1\n');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-tiny-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What the engine says of each answer at the level debug. */
interface Noted {
  readonly keptTokens: number;
  readonly inputTokens: number;
}

async function openTiny(
  options: ModelVersion['options'],
  model?: TinyModel,
  noted: Noted[] = [],
): Promise<Runner> {
  const path = await writeTinyModel(
    join(folder, `tiny-${JSON.stringify(model ?? {}).length}-${model?.seed ?? 1}.gguf`),
    model,
  );
  return await openPath(path, options, noted);
}

async function openPath(
  source: string,
  options: ModelVersion['options'] = {},
  noted: Noted[] = [],
): Promise<Runner> {
  const log: Log = {
    ...SILENT_LOG,
    debug: (details: unknown) => {
      if (typeof details === 'object' && details !== null && 'keptTokens' in details)
        noted.push(details as Noted);
    },
  };
  const context: EngineContext = {
    log,
    modelCacheDir: folder,
    resolveSecret: (reference) => reference,
    allowDownload: () => false,
    notify: () => {},
  };
  const version: ModelVersion = {
    ...{
      model: 'tiny',
      version: '1',
      engine: 'llama',
      task: 'llm/v1/chat',
      source,
      sha256: '',
      sizeBytes: 0,
    },
    options: { threads: 1, contextSize: 1024, ...options },
    createdAtMs: 0,
  };
  const names = { endpoint: 'tiny', servedEntity: 'tiny-1', model: 'tiny@1', fingerprint: 'f' };
  const target: Target = { ...names, engine: 'llama', task: 'llm/v1/chat', modelVersion: version };
  return await llamaEngine.open(target, context);
}

const user = (content: string): ChatMessage => ({ role: 'user', content });
const chat = (
  messages: readonly ChatMessage[],
  parameters: Parameters = {},
  signal?: AbortSignal,
): Batch => ({
  task: 'llm/v1/chat',
  inputs: [{ messages }],
  parameters: { temperature: 0, maxTokens: 60, ...parameters },
  signal: signal ?? new AbortController().signal,
});
async function ask(runner: Runner, messages: readonly ChatMessage[], parameters?: Parameters) {
  const [item] = (await runner.invoke(chat(messages, parameters))).items;
  if (!item?.ok || !('content' in item.output)) throw new Error('no chat answer');
  return item.output;
}

describe.runIf(isAsked)('several requests in one context', { timeout: 120_000 }, () => {
  // Lengths at which the library's own order of batches gives some of them another answer.
  const questions = Array.from({ length: 12 }, (_, index) => [
    user(`question ${'abc '.repeat(index * 7)}${index}`),
  ]);
  const schema = {
    type: 'object',
    properties: {
      kind: { enum: ['bug', 'wish'] },
      tags: { type: 'array', items: { enum: ['a', 'b'] }, maxItems: 2 },
    },
  };
  const format: Parameters = { responseFormat: { type: 'json_schema', name: 'x', schema }, maxTokens: 150 };

  test.each(['f32', 'f16'] as const)('answers do not depend on neighbours (%s)', async (numbers) => {
    const [one, four] = [
      await openTiny({ maxConcurrency: 1 }, { numbers }),
      await openTiny({ maxConcurrency: 4 }, { numbers }),
    ];
    try {
      expect([one.limits.maxConcurrency, four.limits.maxConcurrency]).toEqual([1, 4]);
      const alone = [];
      for (const question of questions) alone.push(await ask(one, question));
      expect(await Promise.all(questions.map((question) => ask(four, question)))).toEqual(alone);
      // Again with what is in memory now, the other way round, and with neighbours under a grammar.
      const crowd = questions
        .toReversed()
        .flatMap((question) => [ask(four, question), ask(four, question, format)]);
      const answers = await Promise.all(crowd);
      expect(answers.filter((_, index) => index % 2 === 0)).toEqual(alone.toReversed());
      for (const { content } of answers.filter((_, index) => index % 2 === 1)) {
        expect(['bug', 'wish']).toContain((JSON.parse(content ?? '') as { kind: string }).kind);
      }
      // An abort in the middle of others leaves them and the next ones as they are.
      const abort = new AbortController();
      const others = questions.slice(0, 4).map((question) => ask(four, question));
      const cancelled = expectCode('CANCELLED', four.invoke(chat([user('z'.repeat(500))], {}, abort.signal)));
      setImmediate(() => abort.abort());
      expect(await Promise.all(others)).toEqual(alone.slice(0, 4));
      await cancelled;
      expect(await ask(four, questions[3] ?? [])).toEqual(alone[3]);
    } finally {
      await Promise.all([one.close(), four.close()]);
    }
  });

  test('a long prompt does not hold up the answer of a neighbour', async () => {
    const runner = await openTiny({ maxConcurrency: 2, contextSize: 2048 });
    try {
      const order: string[] = [];
      const stream = async () => {
        const events = runner.stream?.(chat([user('short')], { maxTokens: 20, stop: ['never'] })) ?? [];
        for await (const event of events as AsyncIterable<StreamEvent>)
          if (event.type === 'delta') order.push('piece');
        order.push('stream');
      };
      const long = ask(runner, [user('long '.repeat(380))], { maxTokens: 1 }).then(() => order.push('long'));
      await Promise.all([stream(), long]);
      expect(order.indexOf('piece')).toBeLessThan(order.indexOf('long'));
    } finally {
      await runner.close();
    }
  });

  test('two versions are open at once; closing one leaves the other', async () => {
    const [first, second] = [await openTiny({}, { seed: 1 }), await openTiny({}, { seed: 2 })];
    const question = [user('who are you?')];
    const before = [await ask(first, question), await ask(second, question)];
    expect(before[0]).not.toEqual(before[1]);
    await first.close();
    expect(await ask(second, question)).toEqual(before[1]);
    await expectCode('INTERNAL', first.invoke(chat(question)));
    await second.close();
  });
});

describe.runIf(isAsked)('beginnings that rows share', { timeout: 120_000 }, () => {
  const kinds = [
    'Sort the ticket into kinds: bug, wish, praise. ',
    'Name the language of this text in one word. ',
  ];
  const rows = Array.from({ length: 50 }, (_, index): { input: ChatInput } => ({
    input: { messages: [user(`${(kinds[index % 2] ?? '').repeat(3)}text ${(index * 37) % 50}`)] },
  }));
  const evaluated = async (order: readonly { input: ChatInput }[], maxConcurrency: number) => {
    const noted: Noted[] = [];
    const runner = await openTiny({ maxConcurrency }, {}, noted);
    const answers = new Map<string, string | null>();
    try {
      const work = order.map(async ({ input }) => {
        answers.set(
          String(input.messages[0]?.content),
          (await ask(runner, input.messages, { maxTokens: 2 })).content,
        );
      });
      await Promise.all(work);
    } finally {
      await runner.close();
    }
    return {
      answers,
      tokens: noted.reduce((sum, { inputTokens, keptTokens }) => sum + inputTokens - keptTokens, 0),
    };
  };

  test('rows in the order of their text: most of the prompt is evaluated once, and the answers are the same', async () => {
    const mixed = await evaluated(rows, 1);
    const sorted = await evaluated(inPromptOrder(rows), 1);
    expect(sorted.tokens).toBeLessThan(mixed.tokens / 2);
    expect([...sorted.answers].sort()).toEqual([...mixed.answers].sort());
  });

  test('with two sequences each takes the prompts that begin as what it holds', async () => {
    const alternating = await evaluated(rows, 2);
    const one = await evaluated(rows, 1);
    expect(alternating.tokens).toBeLessThan(one.tokens);
    expect([...alternating.answers].sort()).toEqual([...one.answers].sort());
  });
});

describe.runIf(isAsked)('tools', { timeout: 120_000 }, () => {
  const tools = [
    {
      name: 'weather',
      description: 'Weather of a place',
      parameters: { type: 'object', properties: { city: { enum: ['Oslo', 'Rome'] } } },
    },
    { name: 'now', parameters: { type: 'object', properties: {} } },
  ];
  let runner: Runner;
  let plain: Runner;
  beforeAll(async () => {
    runner = await openTiny({ maxConcurrency: 2 }, { chatTemplate: TOOL_TEMPLATE });
    plain = await openTiny({});
  });
  afterAll(() => Promise.all([runner?.close(), plain?.close()]));

  test('a tool that must be called is called, with arguments of its schema', async () => {
    const named = await ask(runner, [user('hi')], { tools, toolChoice: { name: 'weather' }, maxTokens: 200 });
    expect(named).toMatchObject({ finishReason: 'tool_calls', toolCalls: [{ name: 'weather' }] });
    const [call] = named.toolCalls ?? [];
    expect(call?.id).toMatch(/^call_[0-9a-f]{24}$/);
    expect(['Oslo', 'Rome']).toContain((JSON.parse(call?.arguments ?? '') as { city: string }).city);
    const any = await ask(runner, [user('hi')], { tools, toolChoice: 'required', maxTokens: 200 });
    expect(['weather', 'now']).toContain(any.toolCalls?.[0]?.name);
  });

  test('a stream ends with the calls', async () => {
    const events: StreamEvent[] = [];
    const parameters: Parameters = { tools, toolChoice: { name: 'weather' }, maxTokens: 200 };
    for await (const event of runner.stream?.(chat([user('hi')], parameters)) ?? []) events.push(event);
    expect(events.at(-2)).toMatchObject({ type: 'tool_call', index: 0, name: 'weather' });
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'tool_calls' });
  });

  test('the model is told of the tools, and reads the results of its calls', async () => {
    const call = { id: 'c1', name: 'weather', arguments: '{"city":"Oslo"}' };
    const history: ChatMessage[] = [user('hi'), { role: 'assistant', content: null, toolCalls: [call] }];
    const result = (content: string): ChatMessage => ({ role: 'tool', toolCallId: 'c1', content });
    const tokensOf = (messages: readonly ChatMessage[]) => runner.countTokens({ messages });
    expect(tokensOf([...history, result('rain and more rain')])).toBeGreaterThan(
      tokensOf([...history, result('sun')]),
    );
    const answer = await ask(runner, [...history, result('rain')], { tools });
    expect(['stop', 'length', 'tool_calls']).toContain(answer.finishReason);
    await expectCode('BAD_REQUEST', runner.invoke(chat([...history, user('and?')])));
    await expectCode('BAD_REQUEST', runner.invoke(chat([user('hi'), result('rain')])));
  });

  test('a model without them in its template refuses and says so; so do choices that cannot be kept', async () => {
    const error = await expectCode('NOT_OFFERED', plain.invoke(chat([user('hi')], { tools })));
    expect(error.message).toContain('chat template of this model knows no tools');
    expect((await ask(plain, [user('hi')], { tools, toolChoice: 'none' })).toolCalls).toBeUndefined();
    const unknown = await expectCode(
      'INVALID_PARAMETER',
      runner.invoke(chat([user('hi')], { tools, toolChoice: { name: 'x' } })),
    );
    expect(unknown.message).toContain('weather, now');
    const both: Parameters = { tools, responseFormat: { type: 'json_object' } };
    await expectCode('NOT_OFFERED', runner.invoke(chat([user('hi')], both)));
    expect([knowsTools(TOOL_TEMPLATE), knowsTools('{{ messages }}'), knowsTools(undefined)]).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe.runIf(isAsked)('broken files', { timeout: 120_000 }, () => {
  const whole = tinyGguf();
  const openBytes = async (bytes: Buffer) => {
    const path = join(folder, 'broken.gguf');
    await writeFile(path, bytes);
    return await openPath(path);
  };

  test('a whole one is read', async () => {
    const path = await writeTinyModel(join(folder, 'whole.gguf'), { chatTemplate: 'T' });
    expect(await readGgufHead(path)).toEqual({ architecture: 'llama', tensors: 21, chatTemplate: 'T' });
  });

  test('cut off in its head or in its tensors: said so, with the size', async () => {
    for (const length of [0, 3, 7, 20, 500, 9_000, whole.length - 100_000, whole.length - 64]) {
      const error = await expectCode('MODEL_NOT_AVAILABLE', openBytes(whole.subarray(0, length)));
      expect(error.message, String(length)).toMatch(/cut off|begins with|goes on after/);
    }
  });

  test('another kind of file, version or claim is said by name', async () => {
    const changed = (at: number, bytes: readonly number[]) => {
      const copy = Buffer.from(whole);
      Buffer.from(bytes).copy(copy, at);
      return copy;
    };
    const messageOf = async (bytes: Buffer) =>
      (await expectCode('MODEL_NOT_AVAILABLE', openBytes(bytes))).message;
    expect(await messageOf(Buffer.from('<html>not found</html>'))).toContain('begins with "<htm"');
    expect(await messageOf(changed(4, [9]))).toContain('version 9');
    expect(await messageOf(changed(8, [0, 0, 0, 0]))).toContain('no tensors');
    expect(await messageOf(changed(16, Array(8).fill(255)))).toContain('18446744073709551615 as entries');
    const width = whole.indexOf('llama.embedding_length') + 'llama.embedding_length'.length + 4;
    expect(await messageOf(changed(width + 3, [237]))).toContain('llama.embedding_length is 3976200256');
    expect(await messageOf(changed(width, [0]))).toContain('llama.embedding_length is 0');
    // The length of the first name.
    expect(await messageOf(changed(24, [255, 255, 255, 127]))).toContain('a text of 2147483647 bytes');
  });

  test('whatever bytes the head has, reading it gives a head or a typed error', async () => {
    const path = join(folder, 'wild.gguf');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(9_000), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        async (changes) => {
          const copy = Buffer.from(whole);
          for (const [at, byte] of changes) copy[at] = byte;
          await writeFile(path, copy);
          const head = await readGgufHead(path).catch((error: unknown) => error);
          if (head instanceof Error) expect(head).toMatchObject({ code: 'MODEL_NOT_AVAILABLE' });
        },
      ),
      { numRuns: 60 },
    );
  });
});
