// What a module says of itself before it is registered, and that nothing of it is run for that; and the reader of
// answers under whatever an agent may give.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { AgentAnswer } from '#engines/module/agent-answer.ts';
import { readQuestion } from '#engines/module/asked-question.ts';
import { exportedNames } from '#engines/module/exports.ts';
import { inspectModule } from '#engines/module/inspect.ts';
import { expectCode } from './contract.ts';
import { agentFile, agentFolder, clearAgents } from './module-support.ts';

afterEach(() => clearAgents());

const AGENT = 'export const predict = () => 1;';

describe('a module that is looked at', () => {
  it('is a chat by an agent, and is not run', async () => {
    const path = agentFile(`throw new Error('It was run.'); ${AGENT}`);
    expect(await inspectModule(path)).toEqual({
      ...{ engine: 'module', task: 'llm/v1/chat', options: { agent: 'module' } },
    });
  });

  it.each([
    ['export function predict() {}', ['predict']],
    ['export async function* predictStream() {}', ['predictStream']],
    ['function a() {}\nexport { a as predict, b };', ['predict', 'b']],
    ['export default { predict() {} };', ['default']],
    ['module.exports = { predict };', ['default']],
    ['exports.predict = 1;', ['predict']],
    ['// export const predict\n/* export const predict */ const a = "export const predict";', []],
    ['const a = `export const predict ${`export const predict`}`;', []],
    ['const a = /export const predict "/; export const b = 1 / 2;', ['b']],
    ["const a = 4 / 2; const b = 'x'; export const predict = a / b;", ['predict']],
  ])('exports what its code says and not what its texts say: %s', (source, names) => {
    expect([...exportedNames(source)]).toEqual(names);
  });

  it('of any text is looked at without an error', () => {
    const pieces = fc.constantFrom(
      '`',
      '${',
      '}',
      '"',
      "'",
      '/',
      '\\',
      '\n',
      '*',
      'export',
      ' ',
      'predict',
      '[',
    );
    const wild = fc.array(pieces, { maxLength: 200 }).map((parts) => parts.join(''));
    fc.assert(fc.property(fc.oneof(wild, fc.string()), (source) => void exportedNames(source)));
    expect(exportedNames('`${'.repeat(100_000)).size).toBe(0);
  });

  it('in a folder is its main, agent or index', async () => {
    const named = agentFolder({
      'package.json': '{"main": "./lib/it.mjs"}',
      'agent.mjs': 'export const a = 1;',
    });
    mkdirSync(join(named, 'lib'));
    writeFileSync(join(named, 'lib', 'it.mjs'), AGENT);
    expect((await inspectModule(named)).mainFile).toBe('lib/it.mjs');
    expect((await inspectModule(agentFolder({ 'agent.ts': AGENT, 'index.js': AGENT }))).mainFile).toBe(
      'agent.ts',
    );
    expect((await inspectModule(agentFolder({ 'index.js': AGENT }))).mainFile).toBe('index.js');
  });

  it.each([
    ['no predict', { 'agent.mjs': 'export const other = 1;' }, /exports other/],
    ['nothing of an agent', { 'readme.txt': '' }, /agent\.mjs/],
    ['a main that leads out', { 'package.json': '{"main": "../x.mjs"}' }, /in the same folder/],
    ['a main that is not there', { 'package.json': '{"main": "x.mjs"}' }, /x\.mjs/],
    ['a package.json that is no JSON', { 'package.json': '{' }, /no JSON/],
  ])('with %s is refused with the reason', async (_name, files: Record<string, string>, said) => {
    const error = await expectCode('INVALID_PARAMETER', inspectModule(agentFolder(files)));
    expect(error.message).toMatch(said);
  });
});

const KEYS = [
  'content',
  'role',
  'choices',
  'delta',
  'message',
  'messages',
  'output',
  'type',
  'item',
  'id',
  'usage',
];
const wildAnswer: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Json>('text', 1, null, true, 'message', 'assistant', 'function_call', 'delta'),
    fc.constantFrom<Json>('response.output_text.delta', 'response.output_item.done', 'response.completed'),
    fc.array(tie('value'), { maxLength: 3 }) as fc.Arbitrary<Json>,
    fc.dictionary(
      fc.constantFrom(...KEYS, 'tool_calls', 'function', 'name', 'arguments', 'call_id', 'text', 'response'),
      tie('value'),
      { maxKeys: 5 },
    ) as fc.Arbitrary<Json>,
  ),
})).value;

describe('the reader of answers', () => {
  it('gives an answer or a typed error, and the same whole as in pieces', () => {
    fc.assert(
      fc.property(fc.array(wildAnswer, { maxLength: 4 }), (values) => {
        const whole = new AgentAnswer('a', 1);
        const streamed = new AgentAnswer('a', 1);
        const events: StreamEvent[] = [];
        try {
          for (const value of values) whole.take(value);
          const item = whole.item();
          for (const value of values) events.push(...streamed.take(value));
          events.push(...streamed.finish());
          if (!item.ok || !('content' in item.output)) throw new Error('It is a chat.');
          const said = events.map((event) => (event.type === 'delta' ? event.text : '')).join('');
          expect(said).toBe(item.output.content ?? '');
          const calls = events.filter(({ type }) => type === 'tool_call');
          expect(calls).toHaveLength(item.output.toolCalls?.length ?? 0);
          expect(events.at(-1)).toMatchObject({
            ...{ type: 'end', finishReason: item.output.finishReason, usage: item.usage },
          });
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(ServingError);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the reader of questions', () => {
  it('gives a question or says what is wrong with it', () => {
    const member = fc.oneof(fc.string(), fc.integer(), wildAnswer);
    const wild = fc.record(
      { endpoint: member, messages: member, parameters: member, cache: member, prompt: member },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(wildAnswer, wild), (question) => {
        try {
          expect(typeof readQuestion(question).endpoint).toBe('string');
        } catch (thrown) {
          expect(thrown).toMatchObject({ name: 'ServingError', code: 'INVALID_PARAMETER' });
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
