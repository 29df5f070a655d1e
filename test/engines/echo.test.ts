// The echo engine's own rules: what comes back for which question.
import { Ajv } from 'ajv';
import { describe, expect, test } from 'vitest';
import type { ChatOutput, EmbeddingOutput, Input, Parameters, Task } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import { echoEngine } from '#engines/echo.ts';
import { fillSchema } from '#engines/echo-schema.ts';
import type { EngineContext } from '#engines/engine.ts';
import { collect, describeEngine, expectCode } from './contract.ts';

const context: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};

const echoTarget = (task: Task, options: JsonObject = {}): Target => ({
  endpoint: 'echo',
  servedEntity: 'echo',
  engine: 'echo',
  task,
  fingerprint: 'echo@1',
  model: 'echo',
  modelVersion: {
    model: 'echo',
    version: '1',
    engine: 'echo',
    task,
    source: '',
    sha256: '',
    sizeBytes: 0,
    options,
    createdAtMs: 0,
  },
});
const user = (content: string): Input => ({ messages: [{ role: 'user', content }] });
const signal = new AbortController().signal;

const inputs: Record<Task, readonly Input[]> = {
  'llm/v1/chat': ['What is a duck?', 'One word.', 'Two words, and more.\nAnd a line.'].map(user),
  'llm/v1/completions': [{ prompt: 'Once upon a time' }, { prompt: 'Zwei' }],
  'llm/v1/embeddings': [{ text: 'a duck' }, { text: 'a goose' }, { text: '' }, { text: 'ein Ente im Teich' }],
  predict: [{ features: { a: 1 } }, { features: [1, 'b'] }],
};
for (const task of Object.keys(inputs) as Task[]) {
  describeEngine('echo', {
    task,
    open: () => echoEngine.open(echoTarget(task), context),
    inputs: inputs[task],
  });
}

async function ask(input: Input, parameters: Parameters = {}, task: Task = 'llm/v1/chat') {
  const runner = await echoEngine.open(echoTarget(task), context);
  const answer = await runner.invoke({ task, inputs: [input], parameters, signal });
  const [item] = answer.items;
  if (!item?.ok) throw item?.error ?? new Error('no item');
  return item;
}
const chat = async (input: Input, parameters?: Parameters) =>
  (await ask(input, parameters)).output as ChatOutput;

describe('echo', () => {
  test('a chat gives back the last user message, not the system message or an earlier turn', async () => {
    const output = await chat({
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'first' },
        { role: 'assistant', content: 'answer' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'sec' },
            { type: 'text', text: 'ond' },
          ],
        },
      ],
    });
    expect(output).toEqual({ content: 'second', finishReason: 'stop' });
  });

  test('max_tokens cuts to four characters a token and says so', async () => {
    const item = await ask(user('abcdefghij'), { maxTokens: 2 });
    expect(item.output).toEqual({ content: 'abcdefgh', finishReason: 'length' });
    expect(item.usage).toEqual({ inputTokens: 3, outputTokens: 2 });
    expect(await chat(user('abcdefg😀'), { maxTokens: 2 })).toEqual({
      content: 'abcdefg',
      finishReason: 'length',
    });
  });

  test('a stop sequence ends the text before it', async () => {
    expect(await chat(user('one END two'), { stop: ['END', 'two'] })).toEqual({
      content: 'one ',
      finishReason: 'stop',
    });
  });

  test('json_object wraps the text', async () => {
    expect((await chat(user('hi'), { responseFormat: { type: 'json_object' } })).content).toBe(
      '{"content":"hi"}',
    );
  });

  test('a required tool is called with arguments that satisfy its parameters', async () => {
    const output = await chat(user('Berlin'), {
      toolChoice: 'required',
      tools: [{ name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } }],
    });
    expect(output.finishReason).toBe('tool_calls');
    expect(output.toolCalls?.[0]).toMatchObject({ name: 'weather', arguments: '{"city":"Berlin"}' });
  });

  test('streams word by word', async () => {
    const runner = await echoEngine.open(echoTarget('llm/v1/chat'), context);
    if (!runner.stream) throw new Error('echo streams');
    const events = await collect(
      runner.stream({ task: 'llm/v1/chat', inputs: [user('one two  three')], parameters: {}, signal }),
    );
    expect(events.map((event) => (event.type === 'delta' ? event.text : event.type))).toEqual([
      'one',
      ' two',
      '  three',
      'end',
    ]);
  });

  test('an abort ends the wait of latencyMs with CANCELLED', async () => {
    const runner = await echoEngine.open(echoTarget('llm/v1/chat', { latencyMs: 60_000 }), context);
    const abort = new AbortController();
    const work = runner.invoke({
      task: 'llm/v1/chat',
      inputs: [user('x')],
      parameters: {},
      signal: abort.signal,
    });
    abort.abort('enough');
    await expectCode('CANCELLED', work);
  });

  test('embeddings of texts that share words are closer than of texts that do not', async () => {
    const embed = async (text: string) => {
      const item = await ask({ text }, {}, 'llm/v1/embeddings');
      return (item.output as EmbeddingOutput).embedding;
    };
    const [refund, refunds, weather] = await Promise.all([
      embed('I want a refund for my order'),
      embed('Please refund the orders I made'),
      embed('Sunny with light wind tomorrow'),
    ]);
    const cosine = (left: Float32Array, right: Float32Array) =>
      left.reduce((sum, value, index) => sum + value * (right[index] ?? 0), 0);
    expect(refund).toHaveLength(64);
    expect(cosine(refund, refunds)).toBeGreaterThan(cosine(refund, weather) + 0.2);
  });
});

describe('filling a schema', () => {
  const ajv = new Ajv({ strict: false, allErrors: true });
  const schemas: Record<string, JsonObject> = {
    'an enum': { enum: ['bug', 'feature', 'question'] },
    'a const': { const: 3 },
    'an object with required members': {
      type: 'object',
      properties: {
        label: { type: 'string', enum: ['a', 'b'] },
        score: { type: 'number', minimum: 0, maximum: 1 },
        count: { type: 'integer', exclusiveMinimum: 2, maximum: 4 },
        ok: { type: 'boolean' },
        note: { type: ['string', 'null'], maxLength: 5 },
      },
      required: ['label', 'score', 'count', 'ok', 'note'],
      additionalProperties: false,
    },
    'a required member that has no schema': { type: 'object', required: ['x'] },
    'a list of distinct labels': {
      type: 'array',
      items: { enum: ['a', 'b', 'c'] },
      uniqueItems: true,
      minItems: 3,
      maxItems: 3,
    },
    'an empty list': { type: 'array', maxItems: 0 },
    multiples: { type: 'number', multipleOf: 0.25, minimum: 10, maximum: 11 },
    'only a maximum': { type: 'integer', maximum: -500 },
    'a reference': {
      type: 'object',
      properties: { who: { $ref: '#/$defs/person' } },
      required: ['who'],
      $defs: {
        person: {
          type: 'object',
          properties: { name: { type: 'string', minLength: 40 } },
          required: ['name'],
        },
      },
    },
    'a schema of itself': {
      type: 'object',
      properties: { value: { type: 'integer' }, children: { type: 'array', items: { $ref: '#' } } },
      required: ['value', 'children'],
    },
    'anyOf and allOf': {
      type: 'object',
      properties: {
        either: { anyOf: [{ type: 'null' }, { type: 'integer' }] },
        both: { allOf: [{ type: 'object', required: ['a'] }, { properties: { a: { type: 'number' } } }] },
      },
      required: ['either', 'both'],
    },
  };
  for (const [what, schema] of Object.entries(schemas)) {
    test(`satisfies ${what}`, () => {
      const check = ajv.compile(schema);
      for (const text of ['', 'x', 'a longer text with words', 'ünïcode 😀']) {
        const value = fillSchema(schema, text);
        expect(check(value), `${JSON.stringify(value)}: ${ajv.errorsText(check.errors)}`).toBe(true);
        expect(fillSchema(schema, text)).toEqual(value);
      }
    });
  }

  test('different texts get different labels', () => {
    const labels = new Set(
      Array.from({ length: 40 }, (_, row) => fillSchema({ enum: [1, 2, 3, 4] }, `row ${row}`)),
    );
    expect(labels.size).toBe(4);
  });
});
