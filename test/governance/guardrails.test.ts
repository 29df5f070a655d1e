import { describe, expect, it } from 'vitest';
import type { ChatOutput, Input } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { createGuards } from '#governance/guardrails/guardrails.ts';
import { KeywordMatcher } from '#governance/guardrails/keywords.ts';
import { callWith, chat, endpointWith, guardWith, passInput } from './guardrails-support.ts';

const CARD = '4111 1111 1111 1111';
const masks = { pii: { behavior: 'MASK' } } as const;
const blocks = { pii: { behavior: 'BLOCK' } } as const;

async function refusalOf(passed: Promise<unknown> | undefined): Promise<ServingError> {
  const refusal = await passed;
  if (!(refusal instanceof ServingError)) throw new Error(`was let through: ${JSON.stringify(refusal)}`);
  return refusal;
}

describe('the guard of an endpoint', () => {
  const ask = () => Promise.reject(new Error('nobody is asked'));
  const guards = createGuards({ ask, log: SILENT_LOG, clock: SYSTEM_CLOCK });

  it('is not there without rules', () => {
    expect(guards.guardOf(endpointWith({}))).toBeUndefined();
    expect(guards.guardOf(endpointWith({ input: {}, output: { safety: false } }))).toBeUndefined();
    expect(guards.guardOf(endpointWith({ input: { invalidKeywords: ['  '] } }))).toBeUndefined();
    const { aiGateway: _none, ...plain } = endpointWith({});
    expect(guards.guardOf(plain)).toBeUndefined();
  });

  it('is the same until the endpoint changes, and guards only the side that has rules', () => {
    const endpoint = endpointWith({ input: masks });
    const guard = guards.guardOf(endpoint);
    expect(guards.guardOf(endpoint)).toBe(guard);
    expect(guards.guardOf({ ...endpoint })).not.toBe(guard);
    expect(guard?.output).toBeUndefined();
    expect(guard?.stream).toBeUndefined();
    expect(guards.guardOf(endpointWith({ output: masks }))?.inputs).toBeUndefined();
  });

  it('has the fingerprint of its rules on outputs, and none without them', () => {
    const fingerprintOf = (rules: Parameters<typeof endpointWith>[0]) =>
      guards.guardOf(endpointWith(rules))?.fingerprint;
    expect(fingerprintOf({ input: masks })).toBe('');
    const masked = fingerprintOf({ output: masks });
    expect(masked).toMatch(/^[0-9a-f]{64}$/);
    expect(fingerprintOf({ input: blocks, output: masks })).toBe(masked);
    expect(fingerprintOf({ output: blocks })).not.toBe(masked);
    expect(fingerprintOf({ output: { ...masks, invalidKeywords: ['x'] } })).not.toBe(masked);
  });
});

describe('personal data that is masked', () => {
  const { guard } = guardWith({ input: masks });

  it.each<readonly [string, Input, Input]>([
    ['messages', chat(`pay with ${CARD}`), chat('pay with <CREDIT_CARD>')],
    [
      'parts of a message',
      {
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'I am bob@example.com' },
              { type: 'image_url', url: 'https://example.com/?mail=bob@example.com' },
            ],
          },
        ],
      },
      {
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'I am <EMAIL_ADDRESS>' },
              { type: 'image_url', url: 'https://example.com/?mail=<EMAIL_ADDRESS>' },
            ],
          },
        ],
      },
    ],
    [
      'calls of tools and their results',
      {
        messages: [
          {
            role: 'assistant',
            content: null,
            toolCalls: [{ id: '1', name: 'f', arguments: '{"to": "bob\\u0040example.com", "n":1.50}' }],
          },
          { role: 'tool', toolCallId: '1', content: '{"ssn":"123456789","card":4111111111111111}' },
        ],
      },
      {
        messages: [
          {
            role: 'assistant',
            content: null,
            toolCalls: [{ id: '1', name: 'f', arguments: '{"to": "<EMAIL_ADDRESS>", "n":1.50}' }],
          },
          { role: 'tool', toolCallId: '1', content: '{"ssn":"<US_SSN>","card":"<CREDIT_CARD>"}' },
        ],
      },
    ],
    ['a prompt', { prompt: 'SSN 123-45-6789' }, { prompt: 'SSN <US_SSN>' }],
    ['a text to embed', { text: 'bob@example.com' }, { text: '<EMAIL_ADDRESS>' }],
    [
      'features, by the names of their columns, numbers untouched',
      {
        features: { routing_number: '021000021', order: '021000021', amount: 4111111111111111, tags: [CARD] },
      },
      {
        features: {
          routing_number: '<ABA_ROUTING_NUMBER>',
          order: '021000021',
          amount: 4111111111111111,
          tags: ['<CREDIT_CARD>'],
        },
      },
    ],
    [
      'features by position',
      { features: ['x', 'bob@example.com', 3] },
      { features: ['x', '<EMAIL_ADDRESS>', 3] },
    ],
  ])('is masked in %s', async (_name, input, masked) => {
    expect(await passInput(guard, input)).toEqual(masked);
  });

  it('leaves inputs without any as they are, the same objects', async () => {
    const inputs = [chat('hello'), chat(CARD), { prompt: 'x' }];
    const verdicts = await guard.inputs?.(callWith(inputs));
    expect(verdicts?.[0]).toBe(inputs[0]);
    expect(verdicts?.[1]).toEqual(chat('<CREDIT_CARD>'));
    expect(verdicts?.[2]).toBe(inputs[2]);
  });

  it('is masked in outputs: content, text, arguments of tools', async () => {
    const { guard: output } = guardWith({ output: masks });
    const given: ChatOutput = {
      content: `it is ${CARD}`,
      toolCalls: [{ id: '1', name: 'mail', arguments: '{"to":"bob@example.com"}' }],
      finishReason: 'tool_calls',
    };
    expect(await output.output?.(callWith([chat('x')]), given)).toEqual({
      content: 'it is <CREDIT_CARD>',
      toolCalls: [{ id: '1', name: 'mail', arguments: '{"to":"<EMAIL_ADDRESS>"}' }],
      finishReason: 'tool_calls',
    });
    const completion = { text: 'bob@example.com', finishReason: 'stop' } as const;
    expect(await output.output?.(callWith([{ prompt: 'x' }]), completion)).toEqual({
      text: '<EMAIL_ADDRESS>',
      finishReason: 'stop',
    });
  });
});

describe('personal data that is blocked', () => {
  it('in an input is refused with the record of Databricks, anonymized', async () => {
    const { guard, log } = guardWith({ input: blocks });
    const error = await refusalOf(passInput(guard, chat('hello', 'I am bob@example.com')));
    expect(error.code).toBe('GUARDRAIL_TRIGGERED');
    expect(error.row.httpStatus).toBe(400);
    expect(error.message).toBe(
      "The input was refused by a guardrail of endpoint 'guarded': it holds personal data (EMAIL_ADDRESS). Remove it and ask again.",
    );
    expect(error.details).toEqual({
      usage: { prompt_tokens: 0, total_tokens: 0 },
      input_guardrail: [
        {
          flagged: false,
          categories: null,
          category_scores: null,
          pii_detection: true,
          anonymized_input: [
            { role: 'user', content: 'hello' },
            { role: 'user', content: 'I am <EMAIL_ADDRESS>' },
          ],
        },
      ],
      finishReason: 'input_guardrail_triggered',
    });
    expect(JSON.stringify([error.message, error.details, log.lines])).not.toContain('bob@');
  });

  it('refuses its own input and no other of the call', async () => {
    const { guard } = guardWith({ input: blocks });
    const verdicts = await guard.inputs?.(callWith([chat('a'), chat(CARD), chat('b')]));
    expect(verdicts?.map((verdict) => verdict instanceof ServingError)).toEqual([false, true, false]);
  });

  it('in an output withholds it, and gives nothing of it in the error', async () => {
    const { guard } = guardWith({ output: blocks });
    const given: ChatOutput = { content: `secretly ${CARD}`, finishReason: 'stop' };
    const error = await refusalOf(guard.output?.(callWith([chat('x')]), given));
    expect(error.details).toEqual({
      output_guardrail: [{ flagged: false, categories: null, category_scores: null, pii_detection: true }],
      finishReason: 'output_guardrail_triggered',
    });
    expect(JSON.stringify([error.message, error.details])).not.toContain('secretly');
  });

  it('is not given back where the masked input is longer than 64 KiB', async () => {
    const { guard } = guardWith({ input: blocks });
    const error = await refusalOf(passInput(guard, chat(`${CARD} ${'long '.repeat(20_000)}`)));
    expect(error.details.input_guardrail).toMatchObject([{ pii_detection: true, anonymized_input: null }]);
  });
});

describe('personal data that is only noted', () => {
  it('passes as it is; the log has kinds and numbers and nothing of it', async () => {
    const { guard, log } = guardWith({ input: { pii: { behavior: 'NONE' } } });
    const input = chat(`${CARD} and bob@example.com, ann@example.com`);
    expect(await passInput(guard, input)).toBe(input);
    expect(log.lines).toHaveLength(1);
    expect(log.lines[0]).toContain('"found":{"CREDIT_CARD":1,"EMAIL_ADDRESS":2}');
    expect(log.lines.join()).not.toMatch(/4111 1111|@/);
  });
});

describe('forbidden keywords', () => {
  const find = (keywords: readonly string[], text: string) => new KeywordMatcher(keywords).find(text);

  it.each<readonly [keyword: string, text: string]>([
    ['bomb', 'a BOMB!'],
    ['Straße', 'in der STRASSE'],
    ['café', 'the cafe\u0301.'],
    ['ｂｏｍｂ', 'bomb'],
    ['bomb', 'ｂｏｍｂ'],
    ['bomb', 'bo\u00admb'],
    ['drop  table', 'DROP\n\tTABLE x'],
    ['C++', 'written in c++.'],
    ['$$$', 'make $$$ fast'],
    ['σοφός', 'ΣΟΦΌΣ'],
    ['爆弾', 'これは爆弾です'],
    ['폭탄', '폭탄을'],
    ['bomb', '这是bomb吗'],
    ['hers', 'ushe shers hers'],
  ])('are found in any case and form: %s in %j', (keyword, text) => {
    expect(find(['nothing', keyword, 'else'], text)).toBe(keyword);
  });

  it.each<readonly [keyword: string, text: string]>([
    ['bomb', 'bombastic, abomb, bomb_x, bombs, bomb2'],
    ['ass', 'class assessment'],
    ['red wine', 'redwine, red winery, infrared wine'],
    ['cafe', 'cafe\u0301'],
    ['C++', 'xc++'],
  ])('are whole words: %s is not in %j', (keyword, text) => {
    expect(find([keyword], text)).toBeUndefined();
  });

  it('refuse an input by name, giving it back without personal data', async () => {
    const { guard } = guardWith({ input: { invalidKeywords: ['Project X'] } });
    const error = await refusalOf(passInput(guard, chat('bob@example.com asks about project x')));
    expect(error.message).toContain("a forbidden keyword 'Project X'. Leave it out");
    expect(error.details.input_guardrail).toEqual([
      {
        flagged: true,
        categories: { invalid_keywords: true },
        category_scores: null,
        pii_detection: false,
        anonymized_input: [{ role: 'user', content: '<EMAIL_ADDRESS> asks about project x' }],
      },
    ]);
    expect(await passInput(guard, chat('bob@example.com'))).toEqual(chat('bob@example.com'));
  });

  it('withhold an output without naming it', async () => {
    const { guard } = guardWith({ output: { invalidKeywords: ['Project X'] } });
    const given: ChatOutput = { content: 'It is Project X.', finishReason: 'stop' };
    const error = await refusalOf(guard.output?.(callWith([chat('x')]), given));
    expect(`${error.message}${JSON.stringify(error.details)}`).not.toContain('Project X');
  });
});
