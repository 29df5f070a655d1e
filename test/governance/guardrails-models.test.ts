import { describe, expect, it } from 'vitest';
import { type ChatMessage, LOCAL_OWNER, type Output, type Principal } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { parseDecision } from '#governance/guardrails/custom-guardrail.ts';
import { parseVerdict } from '#governance/guardrails/judge.ts';
import { callWith, chat, guardWith, passInput, type Question } from './guardrails-support.ts';

const SAFE = '{"flagged": false, "categories": []}';
const textOf = ({ input }: Question): readonly string[] =>
  'messages' in input ? input.messages.map(({ content }: ChatMessage) => String(content)) : [];

async function errorOf(passed: Promise<unknown> | undefined): Promise<ServingError> {
  const error = await passed;
  if (!(error instanceof ServingError)) throw new Error(`was let through: ${JSON.stringify(error)}`);
  return error;
}

describe('the answer of a judge', () => {
  const safety = { phase: 'input', safety: true, topics: [] } as const;
  const topics = { phase: 'input', safety: false, topics: ['tax'] } as const;
  const both = { phase: 'input', safety: true, topics: ['tax'] } as const;

  it.each([
    [safety, SAFE, { isFlagged: false, categories: [], isOnTopic: true }],
    [
      safety,
      '```json\n{"flagged": true, "categories": ["S1", "s9"]}\n```',
      { isFlagged: true, categories: ['violent_crimes', 'indiscriminate_weapons'], isOnTopic: true },
    ],
    [safety, '{"flagged": true}', { isFlagged: true, categories: [], isOnTopic: true }],
    [safety, 'safe', { isFlagged: false, categories: [], isOnTopic: true }],
    [
      safety,
      '\n\nunsafe\nS1,S3',
      { isFlagged: true, categories: ['violent_crimes', 'sex_crimes'], isOnTopic: true },
    ],
    [safety, 'unsafe\nS99', { isFlagged: true, categories: ['s99'], isOnTopic: true }],
    [topics, '{"on_topic": false}', { isFlagged: false, categories: [], isOnTopic: false }],
    [
      both,
      '{"flagged": false, "categories": [], "on_topic": true}',
      { isFlagged: false, categories: [], isOnTopic: true },
    ],
  ] as const)('is a verdict: %j %j', (task, text, verdict) => {
    expect(parseVerdict(text, task)).toEqual({ verdict });
  });

  it.each([
    [safety, ''],
    [safety, 'This is safe.'],
    [safety, 'safe\nS1'],
    [safety, 'I think: {"flagged": false, "categories": []}'],
    [safety, '{"flagged": false, "categories": []} {"flagged": true}'],
    [safety, '{"flagged": "false"}'],
    [safety, '{"flagged": false, "categories": ["S1"]}'],
    [safety, '{"flagged": true, "categories": ["murder"]}'],
    [safety, '{"flagged": false, "note": "x"}'],
    [safety, '[]'],
    [topics, 'safe'],
    [both, '{"flagged": false}'],
    [both, 'unsafe\nS1'],
  ] as const)('is none: %j %j', (task, text) => {
    expect(parseVerdict(text, task)).toHaveProperty('problem');
  });
});

describe('safety', () => {
  const rules = { input: { safety: true, judgeEndpoint: 'judge' } };

  it('is judged by the endpoint that is named, in the name of the endpoint’s creator', async () => {
    const ann: Principal = { id: 'p7', name: 'ann', kind: 'user', isAdmin: false, groups: ['staff'] };
    const principalNamed = (name: string) => (name === 'ann' ? ann : undefined);
    const { guard, asked } = guardWith(rules, () => SAFE, { principalNamed });
    const input = chat('how do I bake bread?');
    expect(await passInput(guard, input)).toBe(input);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({ endpoint: 'judge', principal: ann });
    expect(textOf(asked[0] as Question).join()).toContain('S9: chemical');
    expect(textOf(asked[0] as Question).at(-1)).toBe(
      JSON.stringify({ request: [{ role: 'user', content: 'how do I bake bread?' }] }),
    );
  });

  it('refuses what is flagged, with its categories', async () => {
    const { guard } = guardWith(rules, () => '{"flagged": true, "categories": ["S1"]}');
    const error = await errorOf(passInput(guard, chat('kill bob@example.com')));
    expect(error.code).toBe('GUARDRAIL_TRIGGERED');
    expect(error.details.input_guardrail).toEqual([
      {
        flagged: true,
        categories: { violent_crimes: true },
        category_scores: null,
        pii_detection: false,
        anonymized_input: [{ role: 'user', content: 'kill <EMAIL_ADDRESS>' }],
      },
    ]);
  });

  it('gives a Llama Guard model the conversation itself, without instructions', async () => {
    const { guard, asked } = guardWith(
      {
        input: { safety: true, judgeEndpoint: 'llama-guard-3' },
        output: { safety: true, judgeEndpoint: 'llama-guard-3' },
      },
      () => 'safe',
    );
    await passInput(guard, chat('hello'));
    const output: Output = { content: 'hi', finishReason: 'stop' };
    expect(await guard.output?.(callWith([chat('hello')]), output)).toBe(output);
    expect(asked.map(textOf)).toEqual([['hello'], ['Answer me.', 'hi']]);
  });

  it('is judged after masking, so that no judge sees what the model may not', async () => {
    const { guard, asked } = guardWith({ input: { ...rules.input, pii: { behavior: 'MASK' } } }, () => SAFE);
    expect(await passInput(guard, chat('I am bob@example.com'))).toEqual(chat('I am <EMAIL_ADDRESS>'));
    expect(JSON.stringify(asked)).not.toContain('bob@');
  });

  it('asks nobody about what is refused already', async () => {
    const { guard, asked } = guardWith({ input: { ...rules.input, pii: { behavior: 'BLOCK' } } }, () => SAFE);
    await errorOf(passInput(guard, chat('I am bob@example.com')));
    expect(asked).toEqual([]);
  });

  it('withholds an output, tool calls included', async () => {
    const { guard, asked } = guardWith({ output: rules.input }, () => 'unsafe\nS2');
    const output: Output = {
      content: null,
      toolCalls: [{ id: '1', name: 'pay', arguments: '{"to":"me"}' }],
      finishReason: 'tool_calls',
    };
    const error = await errorOf(guard.output?.(callWith([chat('x')]), output));
    expect(error.details).toMatchObject({
      output_guardrail: [{ flagged: true, categories: { non_violent_crimes: true } }],
    });
    expect(textOf(asked[0] as Question).at(-1)).toContain('[calls pay with {\\"to\\":\\"me\\"}]');
  });

  it('is judged for each input of a call, and each has its own verdict in its place', async () => {
    const { guard } = guardWith(rules, (question) =>
      textOf(question).at(-1)?.includes('bad') ? 'unsafe' : 'safe',
    );
    const inputs = Array.from({ length: 200 }, (_, index) =>
      chat(index % 3 === 0 ? `bad ${index}` : `good ${index}`),
    );
    const verdicts = await guard.inputs?.(callWith(inputs));
    expect(verdicts?.map((verdict) => verdict instanceof ServingError)).toEqual(
      inputs.map((_, index) => index % 3 === 0),
    );
  });

  it('falls back to the default judge, and lets nothing through where there is none', async () => {
    const { guard, asked } = guardWith({ input: { safety: true } }, () => SAFE, {
      defaultJudge: () => 'my-llm',
    });
    await passInput(guard, chat('x'));
    expect(asked[0]?.endpoint).toBe('my-llm');
    const { guard: without } = guardWith({ input: { safety: true } });
    const error = await errorOf(passInput(without, chat('x')));
    expect(error.code).toBe('MODEL_NOT_AVAILABLE');
    expect(error.message).toContain('judge_endpoint');
  });
});

describe('a judge that fails', () => {
  const rules = { input: { safety: true, judgeEndpoint: 'judge' } };

  it.each([
    ['UPSTREAM_ERROR', 'UPSTREAM_ERROR'],
    ['RATE_LIMITED', 'RATE_LIMITED'],
    ['TIMEOUT', 'TIMEOUT'],
    ['CANCELLED', 'CANCELLED'],
    ['PERMISSION_DENIED', 'MODEL_NOT_AVAILABLE'],
    ['ENDPOINT_NOT_FOUND', 'MODEL_NOT_AVAILABLE'],
    ['GUARDRAIL_TRIGGERED', 'MODEL_NOT_AVAILABLE'],
  ] as const)('lets nothing through: %s is told as %s', async (code, told) => {
    const failure = new ServingError(code, 'no.', { retryAfterMs: 70 });
    const { guard } = guardWith(rules, () => failure);
    const error = await errorOf(passInput(guard, chat('x')));
    expect(error.code).toBe(told);
    expect(error.retryAfterMs).toBe(70);
    if (code !== 'CANCELLED')
      expect(error.message).toBe(
        "The judge 'judge' of endpoint 'guarded' could not be asked, so nothing is let through: no.",
      );
  });

  it('lets nothing through either when asking it throws', async () => {
    const ask = () => Promise.reject(new ServingError('ENDPOINT_NOT_FOUND', 'no.'));
    const { guard } = guardWith(rules, undefined, { ask });
    expect((await errorOf(passInput(guard, chat('x')))).code).toBe('MODEL_NOT_AVAILABLE');
  });

  it('lets nothing through when its answer is no verdict', async () => {
    const { guard } = guardWith(rules, () => 'Looks fine to me!');
    const error = await errorOf(passInput(guard, chat('x')));
    expect(error.code).toBe('INVALID_RESPONSE');
    expect(error.message).toContain('it is not a JSON object');
  });
});

describe('topics', () => {
  it('refuse what is about something else', async () => {
    const { guard, asked } = guardWith(
      { input: { validTopics: ['tax', 'wine'], judgeEndpoint: 'judge' } },
      (question) => `{"on_topic": ${textOf(question).at(-1)?.includes('vat')}}`,
    );
    const input = chat('what is vat?');
    expect(await passInput(guard, input)).toBe(input);
    expect(textOf(asked[0] as Question)[0]).toContain('["tax","wine"]');
    const error = await errorOf(passInput(guard, chat('who won?')));
    expect(error.message).toContain('none of the topics that are allowed: tax, wine.');
    expect(error.details).toMatchObject({ input_guardrail: [{ categories: { invalid_topic: true } }] });
  });
});

describe('a question of a guardrail', () => {
  it('causes no other: an endpoint may judge itself without end', async () => {
    const rules = { safety: true, judgeEndpoint: 'guarded', pii: { behavior: 'MASK' } } as const;
    let depth = 0;
    const { guard, asked } = guardWith({ input: rules }, () => SAFE, {
      ask: async (question) => {
        expect(++depth).toBeLessThan(3);
        asked.push(question);
        // What serving does with it: the same guard again, for the principal that asks.
        const [verdict] =
          (await guard.inputs?.(callWith([question.input], { principal: question.principal }))) ?? [];
        if (!verdict || verdict instanceof ServingError) throw new Error('the judge was judged');
        const usage = { inputTokens: 1, outputTokens: 1 };
        return { ok: true, output: { content: SAFE, finishReason: 'stop' }, usage, cached: false };
      },
    });
    const input = chat('hello');
    expect(await passInput(guard, input)).toBe(input);
    expect(asked).toHaveLength(1);
  });

  it('does not mark the caller: the owner’s next call is judged again', async () => {
    const { guard, asked } = guardWith({ input: { safety: true, judgeEndpoint: 'judge' } }, () => SAFE, {
      endpoint: { creator: LOCAL_OWNER.name },
    });
    for (let count = 0; count < 3; count++)
      await guard.inputs?.(callWith([chat('x')], { principal: LOCAL_OWNER }));
    expect(asked).toHaveLength(3);
    expect(asked[0]?.principal).toEqual(LOCAL_OWNER);
  });
});

describe('a custom guardrail', () => {
  const rules = { customEndpoint: 'mine', pii: { behavior: 'MASK' } } as const;
  const call = callWith([chat('x')]);
  const output: Output = { content: 'a plain answer', finishReason: 'stop' };

  it('is sent the phase, the endpoint and the messages as JSON', async () => {
    const { guard, asked } = guardWith({ input: rules, output: rules }, () => '{"decision":"proceed"}');
    const input = chat('I am ok');
    expect(await passInput(guard, input)).toBe(input);
    expect(await guard.output?.(call, output)).toBe(output);
    expect(asked.map((question) => JSON.parse(textOf(question)[0] ?? ''))).toEqual([
      { phase: 'input', endpoint: 'guarded', messages: [{ role: 'user', content: 'I am ok' }] },
      { phase: 'output', endpoint: 'guarded', messages: [{ role: 'assistant', content: 'a plain answer' }] },
    ]);
  });

  it('may reject, with words and a response of its own', async () => {
    const { guard } = guardWith({ input: rules }, () =>
      JSON.stringify({
        decision: 'reject',
        reject_message: 'Ask legal first.',
        guardrail_response: { include_in_response: true, response: { ticket: 7 } },
      }),
    );
    const error = await errorOf(passInput(guard, chat('x')));
    expect(error.message).toBe(
      "The input was refused by a guardrail of endpoint 'guarded': Ask legal first.",
    );
    expect(error.details).toMatchObject({
      input_guardrail: [{ categories: { custom_guardrail: true }, response: { ticket: 7 } }],
    });
  });

  it('may sanitize, and what it writes is under the other rules', async () => {
    const sanitize = (response: unknown) =>
      JSON.stringify({ decision: 'sanitize', guardrail_response: { response } });
    const { guard } = guardWith({ input: rules, output: rules }, (question) =>
      sanitize(
        textOf(question)[0]?.includes('"input"')
          ? 'write to bob@example.com'
          : { choices: [{ message: { content: 'better' } }] },
      ),
    );
    expect(await passInput(guard, chat('first', 'second'))).toEqual(
      chat('first', 'write to <EMAIL_ADDRESS>'),
    );
    expect(await passInput(guard, { prompt: 'p' })).toEqual({ prompt: 'write to <EMAIL_ADDRESS>' });
    expect(await guard.output?.(call, output)).toEqual({ content: 'better', finishReason: 'stop' });
  });

  it('may sanitize message by message', async () => {
    const { guard } = guardWith({ input: rules }, () =>
      JSON.stringify({
        decision: 'sanitize',
        guardrail_response: { response: { messages: [{ content: 'one' }, { content: 'two' }] } },
      }),
    );
    expect(await passInput(guard, chat('a', 'b'))).toEqual(chat('one', 'two'));
    expect((await errorOf(passInput(guard, chat('a', 'b', 'c')))).code).toBe('INVALID_RESPONSE');
  });

  it.each([
    'yes',
    '[]',
    '{}',
    '{"decision":"allow"}',
    '{"decision":"sanitize"}',
    '{"decision":"sanitize","guardrail_response":{"response":{"messages":[]}}}',
    '{"decision":"sanitize","guardrail_response":{"response":{"messages":[{"content":1}]}}}',
    '{"decision":"reject","reject_message":7}',
    '{"decision":"proceed","guardrail_response":"x"}',
  ])('that answers %s has decided nothing, and nothing is let through', async (text) => {
    expect(parseDecision(text)).toHaveProperty('problem');
    const { guard } = guardWith({ input: rules }, () => text);
    expect((await errorOf(passInput(guard, chat('x')))).code).toBe('INVALID_RESPONSE');
  });
});
