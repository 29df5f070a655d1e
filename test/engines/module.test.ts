// Agents in JavaScript: what they are given, what they may answer, whom they ask, and how little harm a broken one
// does. Real threads; what an agent asks is answered by the test.
import { afterEach, describe, expect, it } from 'vitest';
import type { ChatOutput, StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { AskedByModel, Batch, Caller, Runner } from '#engines/engine.ts';
import { collect, describeEngine, expectCode } from './contract.ts';
import { ANN, agentFile, agentFolder, batchOf, clearAgents, HeardLog, openAgent } from './module-support.ts';

afterEach(() => clearAgents());

const ECHO = `
  export const predict = ({ messages }) => 'said: ' + messages.at(-1).content;
  export async function* predictStream({ messages }) {
    yield 'said: ';
    yield messages.at(-1).content;
  }
`;

describeEngine('module', {
  task: 'llm/v1/chat',
  open: async () => namingCaller(await openAgent(ECHO, { isKept: true })),
  inputs: [
    { messages: [{ role: 'user', content: 'one' }] },
    { messages: [{ role: 'user', content: 'two' }] },
  ],
});

/** The suite of all engines asks in nobody's name. */
function namingCaller(runner: Runner): Runner {
  const named = (batch: Batch): Batch => ({ ...batch, caller: batchOf('').caller as Caller });
  return {
    ...{ limits: runner.limits, countTokens: (input) => runner.countTokens(input) },
    invoke: (batch) => runner.invoke(named(batch)),
    stream: (batch) => runner.stream?.(named(batch)) ?? failed(),
    close: () => runner.close(),
  };
}

async function answerOf(runner: Runner, text = 'hi', extra = {}): Promise<ChatOutput> {
  const [item] = (await runner.invoke(batchOf(text, extra))).items;
  if (!item?.ok) throw item?.error;
  return item.output as ChatOutput;
}

async function failureOf(runner: Runner, text = 'hi', extra = {}): Promise<ServingError> {
  const [item] = (await runner.invoke(batchOf(text, extra))).items;
  if (item?.ok !== false) throw new Error('It did not fail.');
  return item.error;
}

describe('what an agent is given', () => {
  it('is the conversation and the parameters as the OpenAI API spells them, and who asks', async () => {
    const runner = await openAgent(`
      export const predict = (request, { principal }) => JSON.stringify({ request, principal });
    `);
    const messages = [
      { role: 'assistant', content: null, toolCalls: [{ id: 'c1', name: 'look', arguments: '{}' }] },
      { role: 'tool', content: 'seen', toolCallId: 'c1' },
      { role: 'user', content: [{ type: 'image_url', url: 'data:x' }] },
    ];
    const { content } = await answerOf(runner, 'hi', {
      inputs: [{ messages }],
      parameters: {
        ...{ maxTokens: 7, temperature: 0, tools: [{ name: 'look' }], extra: { top: 1 } },
        ...{ customInputs: { city: 'Ulm' }, conversation: { conversation_id: 'k' } },
      },
      caller: { principal: { ...ANN, scopes: ['query'] }, origin: 'http', depth: 0 },
    });
    expect(JSON.parse(content ?? '')).toEqual({
      request: {
        messages: [
          {
            role: 'assistant',
            content: null,
            tool_calls: [{ id: 'c1', type: 'function', function: { name: 'look', arguments: '{}' } }],
          },
          { role: 'tool', content: 'seen', tool_call_id: 'c1' },
          { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:x' } }] },
        ],
        parameters: {
          ...{ max_tokens: 7, temperature: 0, top: 1 },
          tools: [{ type: 'function', function: { name: 'look' } }],
        },
        custom_inputs: { city: 'Ulm' },
        conversation: { conversation_id: 'k' },
      },
      principal: { name: 'ann', kind: 'user', groups: ['staff'] },
    });
  });

  it('is the environment of its endpoint with secrets resolved, and none of the server', async () => {
    process.env.DUCKSERVE_TEST_KEY = 'of the server';
    try {
      const runner = await openAgent(
        'export const predict = () => `${process.env.CITY} ${process.env.KEY} ${process.env.DUCKSERVE_TEST_KEY}`;',
        {
          target: { environment: { CITY: 'Ulm', KEY: '{{secrets/a/b}}' } },
          context: { resolveSecret: (reference) => (reference.startsWith('{{') ? 'open' : reference) },
        },
      );
      expect((await answerOf(runner)).content).toBe('Ulm open undefined');
    } finally {
      delete process.env.DUCKSERVE_TEST_KEY;
    }
  });

  it('is a log whose lines name the agent, and what it prints is written there, too, without its secrets', async () => {
    const log = new HeardLog();
    const runner = await openAgent(
      `export const predict = (request, { log }) => {
        log.warn('careful', { step: 1, key: process.env.KEY });
        console.log('the key is ' + process.env.KEY);
        throw new Error('not with ' + process.env.KEY);
      };`,
      {
        target: { environment: { KEY: '{{secrets/a/b}}' } },
        context: { log, resolveSecret: () => 'abracadabra' },
      },
    );
    expect((await failureOf(runner)).message).toContain('not with ***');
    await expect
      .poll(() => log.lines.map(({ level, message }) => `${level}: ${message}`))
      .toEqual(expect.arrayContaining(['warn: careful', 'info: the key is ***']));
    expect(log.lines.find(({ message }) => message === 'careful')?.fields).toEqual({
      agent: "'helper@1'",
      step: 1,
      key: '***',
    });
    expect(JSON.stringify(log.lines)).not.toContain('abracadabra');
  });
});

describe('what an agent may answer', () => {
  const cases: [string, string, Partial<ChatOutput>][] = [
    ['a text', `'hello'`, { content: 'hello', finishReason: 'stop' }],
    ['a message', `({ role: 'assistant', content: 'hello' })`, { content: 'hello' }],
    [
      'custom outputs beside it',
      `({ content: 'hello', custom_outputs: { seen: 3 } })`,
      { content: 'hello', customOutputs: { seen: 3 } },
    ],
    [
      'a chat completion',
      `({ choices: [{ message: { role: 'assistant', content: 'hello' }, finish_reason: 'length' }] })`,
      { content: 'hello', finishReason: 'length' },
    ],
    [
      'a response with two messages',
      `({ output: [
        { type: 'message', id: 'm1', content: [{ type: 'output_text', text: 'one' }] },
        { type: 'message', id: 'm2', content: [{ type: 'output_text', text: 'two' }] },
      ] })`,
      { content: 'one\ntwo' },
    ],
    [
      'tool calls for its caller, but not those it has run itself',
      `({ output: [
        { type: 'function_call', call_id: 'a', name: 'own', arguments: '{}' },
        { type: 'function_call_output', call_id: 'a', output: '1' },
        { type: 'function_call', call_id: 'b', name: 'yours', arguments: '{"x":1}' },
      ] })`,
      {
        content: null,
        toolCalls: [{ id: 'b', name: 'yours', arguments: '{"x":1}' }],
        finishReason: 'tool_calls',
      },
    ],
    [
      'the messages of a chat agent',
      `({ messages: [
        { role: 'assistant', id: '1', content: '', tool_calls: [{ id: 'a', type: 'function', function: { name: 'own', arguments: '{}' } }] },
        { role: 'tool', id: '2', tool_call_id: 'a', content: 'result' },
        { role: 'assistant', id: '3', content: 'so it is' },
      ] })`,
      { content: 'so it is', finishReason: 'stop' },
    ],
    [
      'events, where only a stream was written',
      `(async function* () { yield 'a'; yield { type: 'delta', text: 'b' }; })()`,
      { content: 'ab' },
    ],
  ];
  it.each(cases)('%s', async (_name, answer, expected) => {
    const runner = await openAgent(`export const predict = () => ${answer};`);
    expect(await answerOf(runner)).toMatchObject(expected);
  });

  it.each([
    ['undefined', 'gave nothing'],
    ['42', 'the number 42'],
    ['[1]', 'a list'],
    ['({ wrong: 1 })', 'an object with wrong'],
  ])('nothing else: %s is refused by name', async (answer, said) => {
    const runner = await openAgent(`export const predict = () => ${answer};`);
    const error = await failureOf(runner);
    expect(error.code).toBe('UPSTREAM_REJECTED');
    expect(error.message).toContain(said);
  });

  it('usage, which is believed, and otherwise estimated', async () => {
    const told = await openAgent(
      `export const predict = () => ({ content: 'x', usage: { prompt_tokens: 5, completion_tokens: 6 } });`,
    );
    const [item] = (await told.invoke(batchOf('hi'))).items;
    expect(item).toMatchObject({ usage: { inputTokens: 5, outputTokens: 6 } });
  });
});

describe('a stream', () => {
  const textOf = (events: readonly StreamEvent[]) =>
    events.map((event) => (event.type === 'delta' ? event.text : '')).join('');

  it('passes on the events of a response: deltas, items that had none, tool calls at the end', async () => {
    const runner = await openAgent(`export async function* predictStream() {
      yield { type: 'response.created', response: {} };
      yield { type: 'response.output_text.delta', item_id: 'm1', delta: 'on' };
      yield { type: 'response.output_text.delta', item_id: 'm1', delta: 'e' };
      yield { type: 'response.output_item.done', item: { type: 'message', id: 'm1', content: [{ type: 'output_text', text: 'one' }] } };
      yield { type: 'response.output_item.done', item: { type: 'message', id: 'm2', content: [{ type: 'output_text', text: 'two' }] } };
      yield { type: 'response.output_item.done', item: { type: 'function_call', call_id: 'c', name: 'go', arguments: '{}' } };
    }`);
    const events = await collect(runner.stream?.(batchOf('hi')) ?? failed());
    expect(textOf(events)).toBe('one\ntwo');
    expect(events.slice(-2)).toMatchObject([
      { type: 'tool_call', index: 0, id: 'c', name: 'go', arguments: '{}' },
      { type: 'end', finishReason: 'tool_calls' },
    ]);
  });

  it('passes on chunks of chat completions with pieces of tool calls', async () => {
    const chunk = (delta: string) => `yield { choices: [{ index: 0, delta: ${delta} }] };`;
    const runner = await openAgent(`export async function* predictStream() {
      ${chunk("{ role: 'assistant', content: 'a' }")}
      ${chunk("{ tool_calls: [{ index: 0, id: 'c', type: 'function', function: { name: 'go', arguments: '{\"x\"' } }] }")}
      ${chunk("{ tool_calls: [{ index: 0, function: { arguments: ':1}' } }] }")}
      yield { choices: [], usage: { prompt_tokens: 1, completion_tokens: 2 } };
    }`);
    const events = await collect(runner.stream?.(batchOf('hi')) ?? failed());
    expect(events).toEqual([
      { type: 'delta', text: 'a' },
      { type: 'tool_call', index: 0, id: 'c', name: 'go', arguments: '{"x":1}' },
      { type: 'end', finishReason: 'tool_calls', usage: { inputTokens: 1, outputTokens: 2 } },
    ]);
  });

  it('is drawn by its reader: an agent does not run ahead, and stops when the reader leaves', async () => {
    const log = new HeardLog();
    const runner = await openAgent(
      `export async function* predictStream(request, { log }) {
        try { for (let i = 0; ; i++) { log.info('step ' + i); yield 'x'; } } finally { log.info('left'); }
      }`,
      { context: { log } },
    );
    const stream = runner.stream?.(batchOf('hi'))[Symbol.asyncIterator]() ?? failed();
    await stream.next();
    await stream.next();
    await stream.return?.();
    await expect.poll(() => log.lines.map(({ message }) => message)).toEqual(['step 0', 'step 1', 'left']);
  });

  it('that breaks off ends with the error of the agent', async () => {
    const runner = await openAgent(
      `export async function* predictStream() { yield 'a'; throw new TypeError('no more'); }`,
    );
    const error = await expectCode('UPSTREAM_REJECTED', collect(runner.stream?.(batchOf('hi')) ?? failed()));
    expect(error.message).toContain('TypeError: no more');
  });
});

describe('asking others', () => {
  const asked: AskedByModel[] = [];
  const context = {
    ask: async (question: AskedByModel) => {
      asked.push(question);
      if (question.endpoint === 'closed')
        return { ok: false as const, error: new ServingError('PERMISSION_DENIED', "'ann' may not.") };
      const output = { content: `heard ${JSON.stringify(question.input)}`, finishReason: 'stop' as const };
      return { ok: true as const, output, usage: { inputTokens: 1, outputTokens: 2 }, cached: false };
    },
    askStream: async function* (question: AskedByModel): AsyncGenerator<StreamEvent> {
      asked.push(question);
      yield { type: 'delta', text: 'a' };
      yield { type: 'delta', text: 'b' };
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 2 } };
    },
  };
  const asking = {
    ask: context.ask,
    askStream: async (question: AskedByModel) => context.askStream(question),
  };
  const caller = { principal: ANN, origin: 'sql' as const, depth: 3, callId: 'parent' };

  it('happens as the caller, with the messages and parameters of the agent, and gives the answer', async () => {
    asked.length = 0;
    const runner = await openAgent(
      `export const predict = async ({ messages }, { ask }) => {
        const { content, usage } = await ask({ endpoint: 'llm', messages, parameters: { temperature: 0, max_tokens: 5, custom: 1 } });
        return content + ' for ' + usage.output_tokens;
      };`,
      { context: asking },
    );
    expect((await answerOf(runner, 'hi', { caller })).content).toBe(
      'heard {"messages":[{"role":"user","content":"hi"}]} for 2',
    );
    expect(asked).toMatchObject([
      {
        ...{ endpoint: 'llm', task: 'llm/v1/chat', caller },
        parameters: { temperature: 0, maxTokens: 5, extra: { custom: 1 } },
      },
    ]);
  });

  it('can be streamed through', async () => {
    const runner = await openAgent(
      `export async function* predictStream({ messages }, { askStream }) {
        yield* askStream({ endpoint: 'llm', messages: 'hello' });
      }`,
      { context: asking },
    );
    const events = await collect(runner.stream?.(batchOf('hi', { caller })) ?? failed());
    expect(events).toEqual([
      { type: 'delta', text: 'a' },
      { type: 'delta', text: 'b' },
      { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 2 } },
    ]);
  });

  it('fails as an error with a code, which the agent may catch or be failed by', async () => {
    const source = (body: string) => `export const predict = async (request, { ask }) => { ${body} };`;
    const catching = await openAgent(
      source(
        `try { await ask({ endpoint: 'closed', messages: 'x' }); } catch (error) { return error.code + ' ' + error.status; }`,
      ),
      { context: asking },
    );
    expect((await answerOf(catching)).content).toBe('PERMISSION_DENIED 403');
    const failing = await openAgent(source(`return await ask({ endpoint: 'closed', messages: 'x' });`), {
      context: asking,
    });
    expect(await failureOf(failing)).toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining("'ann' may not."),
    });
  });

  it.each([
    [`{ messages: 'x' }`, "'endpoint' is missing"],
    [`{ endpoint: 'llm' }`, 'exactly one of messages, prompt, input, features'],
    [`{ endpoint: 'llm', messages: 'x', prompt: 'y' }`, 'messages and prompt'],
    [`{ endpoint: 'llm', messages: [{ role: 'king' }] }`, `"king"`],
    [`{ endpoint: 'llm', messages: 'x', temperature: 0 }`, "'temperature'"],
    [`{ endpoint: 'llm', messages: 'x', parameters: { max_tokens: 'many' } }`, 'parameters.max_tokens'],
    ['undefined', 'what is asked'],
  ])('says what is wrong with a question: %s', async (question, said) => {
    const runner = await openAgent(`export const predict = (request, { ask }) => ask(${question});`, {
      context: asking,
    });
    const error = await failureOf(runner);
    expect(error).toMatchObject({ code: 'INVALID_PARAMETER', message: expect.stringContaining(said) });
  });

  it('ends with the call: when its caller goes, so does what it has asked', async () => {
    let heard: AbortSignal | undefined;
    const runner = await openAgent(
      `export const predict = (request, { ask }) => ask({ endpoint: 'slow', messages: 'x' });`,
      {
        context: {
          ask: ({ signal }) => {
            heard = signal;
            return new Promise(() => {});
          },
        },
      },
    );
    const controller = new AbortController();
    const waiting = runner.invoke(batchOf('hi', { signal: controller.signal }));
    await expect.poll(() => heard).toBeDefined();
    controller.abort(new ServingError('TIMEOUT', 'Too late.'));
    expect(
      (await waiting.then(
        () => undefined,
        (error: unknown) => error,
      )) ?? failed(),
    ).toBeDefined();
    expect(heard?.aborted).toBe(true);
  });
});

describe('an agent that does harm', () => {
  it('by throwing fails its own call alone', async () => {
    const runner = await openAgent(
      `export const predict = ({ messages }) => { if (messages[0].content === 'bad') throw new Error('I cannot'); return 'ok'; };`,
    );
    const [bad, good] = await Promise.all([failureOf(runner, 'bad'), answerOf(runner, 'good')]);
    expect(bad).toMatchObject({ code: 'UPSTREAM_REJECTED', message: expect.stringContaining('I cannot') });
    expect(good.content).toBe('ok');
  });

  it.each([
    ['an endless loop', 'for (;;) {}', /in a loop/],
    ['process.exit', 'process.exit(3)', /code 3/],
    [
      'an error nobody catches',
      'setTimeout(() => { throw new Error("late"); }); return new Promise(() => {})',
      /late/,
    ],
    [
      'all the memory',
      'const all = []; for (;;) all.push(new Array(100000).fill(Math.random()))',
      /memory|in a loop/,
    ],
  ])('by %s loses its thread, and its calls fail as MODEL_CRASHED', async (_name, body, said) => {
    const runner = await openAgent(`export const predict = () => { ${body}; };`, {
      options: { stallSeconds: 2, memoryMb: 32 },
    });
    const error = await expectCode('MODEL_CRASHED', runner.invoke(batchOf('hi')));
    expect(error.message).toMatch(said);
    expect(await runner.lost).toBe(error);
    await expectCode('MODEL_CRASHED', runner.invoke(batchOf('again')));
  });

  it('by taking too long is left with TIMEOUT, and told so', async () => {
    const log = new HeardLog();
    const runner = await openAgent(
      `export const predict = (request, { signal, log }) => new Promise((resolve) => {
        signal.addEventListener('abort', () => log.info('told'));
      });`,
      { options: { timeoutSeconds: 0.05 }, context: { log } },
    );
    expect(await failureOf(runner)).toMatchObject({ code: 'TIMEOUT' });
    await expect.poll(() => log.lines.map(({ message }) => message)).toContain('told');
  });

  it.each([
    ['what is no JavaScript', 'export const predict = (;', /SyntaxError/],
    ['what fails while it is loaded', 'throw new Error("no key")', /no key/],
    [
      'what imports something absent',
      `import 'not-there-at-all'; export const predict = 1;`,
      /not-there-at-all/,
    ],
    ['what exports no function', 'export const predict = 1;', /no function predict/],
    ['what never ends to load', 'await new Promise(() => setInterval(() => {}, 1000));', /startSeconds/],
  ])('cannot be opened: %s', async (_name, source, said) => {
    const error = await expectCode(
      'MODEL_NOT_AVAILABLE',
      openAgent(source, { options: { startSeconds: 3 } }),
    );
    expect(error.message).toMatch(said);
  });

  it.each([
    ['maxConcurrency', 0],
    ['timeoutSeconds', 'soon'],
    ['memoryMb', 1.5],
  ])('has options that are checked: %s = %s', async (name, value) => {
    const error = await expectCode('INVALID_PARAMETER', openAgent(ECHO, { options: { [name]: value } }));
    expect(error.message).toContain(name);
  });
});

describe('a module', () => {
  it('may be TypeScript where something reads it', async () => {
    const path = agentFile(
      'export const predict = (request: { messages: unknown[] }): string => `n=${request.messages.length}`;',
      'agent.ts',
    );
    expect((await answerOf(await openAgent(path))).content).toBe('n=1');
  });

  it('may be CommonJS, have its functions in the default export, and import what lies beside it', async () => {
    const common = agentFile(`module.exports.predict = () => 'common';`, 'agent.cjs');
    expect((await answerOf(await openAgent(common))).content).toBe('common');
    const folder = agentFolder({
      'agent.mjs': `import { word } from './word.mjs'; export default { word, predict() { return this.word; } };`,
      'word.mjs': `export const word = 'beside';`,
    });
    expect((await answerOf(await openAgent(`${folder}/agent.mjs`))).content).toBe('beside');
  });

  it('works on many calls at once', async () => {
    const runner = await openAgent(`
      let waiting = [];
      export const predict = () => new Promise((resolve) => {
        waiting.push(resolve);
        if (waiting.length === 50) for (const each of waiting) each('all here');
      });
    `);
    const answers = await Promise.all(Array.from({ length: 50 }, () => answerOf(runner)));
    expect(new Set(answers.map(({ content }) => content))).toEqual(new Set(['all here']));
  });
});

function failed(): never {
  throw new Error('It should have been there.');
}
