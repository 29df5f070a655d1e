import { describe, expect, it } from 'vitest';
import type { Output, ResponseFormat } from '#core/call.ts';
import { loadOutputCheck } from '#serving/output-check.ts';

const PERSON: ResponseFormat = {
  type: 'json_schema',
  name: 'person',
  schema: {
    $schema: 'http://json-schema.org/draft-07/schema#',
    type: 'object',
    properties: { name: { type: 'string' }, age: { type: 'integer' } },
    required: ['name'],
    additionalProperties: false,
  },
};
const text = (content: string, finishReason: 'stop' | 'length' = 'stop'): Output => ({
  content,
  finishReason,
});

async function check(output: Output, responseFormat: ResponseFormat = PERSON) {
  return (await loadOutputCheck({ responseFormat }))(output);
}

describe('an answer that should be JSON', () => {
  it('is passed on as it is when it fits the schema', async () => {
    const output = text('{"name":"Ann","age":3}');
    const checked = await check(output);
    expect(checked.ok && checked.output).toBe(output);
  });

  it('is taken out of a fence', async () => {
    const checked = await check(text('Here you are:\n```json\n{"name":"Ann"}\n```\nAnything else?'));
    expect(checked.ok && checked.output).toMatchObject({ content: '{"name":"Ann"}' });
  });

  it('is repaired when the damage is small', async () => {
    const checked = await check(text("{name: 'Ann', age: 3,}"));
    expect(checked.ok && 'content' in checked.output && JSON.parse(checked.output.content ?? '')).toEqual({
      name: 'Ann',
      age: 3,
    });
  });

  it('is an error when it does not fit, and the message says where and shows the beginning', async () => {
    const checked = await check(text('{"name":1}'));
    if (checked.ok) throw new Error('should not fit');
    expect(checked.error.code).toBe('INVALID_RESPONSE');
    expect(checked.error.message).toContain('/name must be string');
    expect(checked.error.message).toContain('{\\"name\\":1}');
    expect(checked.isFinal).toBe(false);
  });

  it('is never prose dressed up as JSON', async () => {
    expect((await check(text('Sorry, I cannot'), { type: 'json_object' })).ok).toBe(false);
    expect((await check(text('I cannot do that.'))).ok).toBe(false);
  });

  it('is an error that says to raise max_tokens when it was cut off, and is not worth asking again', async () => {
    const checked = await check(text('{"name":"An', 'length'));
    if (checked.ok) throw new Error('should not fit');
    expect(checked.error.message).toContain('max_tokens');
    expect(checked.isFinal).toBe(true);
  });

  it('may be a tool call instead', async () => {
    const output: Output = {
      content: null,
      toolCalls: [{ id: '1', name: 'f', arguments: '{}' }],
      finishReason: 'tool_calls',
    };
    expect((await check(output)).ok).toBe(true);
  });
});

describe('a schema', () => {
  it('that is not one is refused before anything is asked', async () => {
    const responseFormat: ResponseFormat = { type: 'json_schema', name: 'bad', schema: { type: 'nonsense' } };
    await expect(loadOutputCheck({ responseFormat })).rejects.toMatchObject({
      code: 'UNSUPPORTED_RETURN_TYPE',
    });
  });
});

describe('an embedding', () => {
  it('with a value that is not a number is an error', async () => {
    const plain = await loadOutputCheck({});
    expect(plain({ embedding: Float32Array.of(1, Number.NaN) }).ok).toBe(false);
    expect(plain({ embedding: new Float32Array(0) }).ok).toBe(false);
    expect(plain({ embedding: Float32Array.of(1, 2) }).ok).toBe(true);
  });
});
