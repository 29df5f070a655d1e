import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ChatMessage, Input } from '#core/call.ts';
import { canonicalJson } from '#core/json.ts';
import { canonicalInput, maxInputTokens } from '#serving/inputs.ts';

const message: fc.Arbitrary<ChatMessage> = fc.record(
  {
    role: fc.constantFrom('system' as const, 'user' as const, 'assistant' as const),
    content: fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constant(null),
      fc.array(fc.record({ type: fc.constant('text' as const), text: fc.string() })),
    ),
    name: fc.string(),
    toolCallId: fc.string(),
  },
  { requiredKeys: ['role', 'content'] },
);
const input: fc.Arbitrary<Input> = fc.oneof(
  fc.record({ messages: fc.array(message, { minLength: 1 }) }),
  fc.record({ prompt: fc.string({ unit: 'binary' }) }),
  fc.record({ text: fc.string({ unit: 'binary' }) }),
  fc.record({ features: fc.dictionary(fc.string(), fc.oneof(fc.integer(), fc.string(), fc.constant(null))) }),
);

describe('the canonical text of an input', () => {
  it('is its canonical JSON, for every shape', () => {
    fc.assert(fc.property(input, (each) => canonicalInput(each) === canonicalJson(each)));
  });

  it('tells apart what JSON does not: null, NaN and the infinities', () => {
    const rows = [null, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    const texts = rows.map((value) => canonicalInput({ features: [value] }));
    expect(new Set(texts).size).toBe(4);
  });
});

describe('the bound on tokens', () => {
  it('counts bytes, not characters, and sixteen per message', () => {
    expect(maxInputTokens({ text: 'ä' })).toBe(2 + 16);
    const twice: ChatMessage = { role: 'user', content: 'ab' };
    expect(maxInputTokens({ messages: [twice, twice] })).toBe(4 + 32);
  });
});
