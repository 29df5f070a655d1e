// modelParameters and responseFormat: from SQL's spelling to the parameters of a call.
import { describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { formatFor, isWrapped, parametersFrom, parseResponseFormat } from '#functions/model-parameters.ts';
import { parseSqlType } from '#functions/sql-type.ts';

describe('modelParameters', () => {
  it('are none for NULL and for an empty struct', () => {
    expect(parametersFrom(null)).toEqual({});
    expect(parametersFrom({})).toEqual({});
  });

  it('become the parameters of a call, and texts of numbers become numbers', () => {
    expect(
      parametersFrom({
        max_tokens: '100',
        temperature: 0.5,
        top_p: 1,
        top_k: 40,
        seed: -3,
        dimensions: 256,
        stop: 'END',
      }),
    ).toEqual({
      maxTokens: 100,
      temperature: 0.5,
      topP: 1,
      topK: 40,
      seed: -3,
      dimensions: 256,
      stop: ['END'],
    });
    expect(parametersFrom({ stop: ['a', 'b'] })).toEqual({ stop: ['a', 'b'] });
  });

  it('pass on names that are not known, also those that every object of JavaScript has', () => {
    expect(parametersFrom({ frequency_penalty: 1, reasoning: { effort: 'low' } })).toEqual({
      extra: { frequency_penalty: 1, reasoning: { effort: 'low' } },
    });
    expect(parametersFrom({ constructor: 1, toString: 'x' })).toEqual({
      extra: { constructor: 1, toString: 'x' },
    });
  });

  it('leave out what is NULL', () => {
    expect(parametersFrom({ max_tokens: null, stop: null, mirostat: null })).toEqual({});
  });

  it.each<[Json, string]>([
    [{ max_tokens: 0 }, 'max_tokens is 0; it must be a whole number between 1 and'],
    [{ max_tokens: 1.5 }, 'max_tokens is 1.5; it must be a whole number'],
    [{ temperature: 3 }, 'temperature is 3; it must be a number between 0 and 2'],
    [{ temperature: '' }, 'temperature is ""'],
    [{ temperature: 'warm' }, 'temperature is "warm"'],
    [{ top_p: true }, 'top_p is true'],
    [{ stop: [1] }, 'stop must be a text or a list of texts, it is [1]'],
    [{ messages: [] }, '"messages" cannot be set here'],
    [{ model: 'x' }, '"model" cannot be set here'],
    [{ stream: true }, '"stream" cannot be set here'],
    [{ response_format: {} }, '"response_format" cannot be set here'],
    ['max_tokens=1', 'must be a struct such as'],
    [[1], 'must be a struct such as'],
  ])('%j are refused with the reason', (value, reason) => {
    expect(() => parametersFrom(value)).toThrowError(expect.objectContaining({ code: 'INVALID_PARAMETER' }));
    expect(() => parametersFrom(value)).toThrow(reason);
  });
});

describe('responseFormat', () => {
  it.each<[string, object]>([
    ['text', { type: 'text' }],
    [' json_object ', { type: 'json_object' }],
    ['{"type":"text"}', { type: 'text' }],
    ['{"type":"json_object"}', { type: 'json_object' }],
    [
      '{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}}',
      { type: 'json_schema', name: 'n', strict: true, schema: { type: 'object' } },
    ],
    [
      '{"type":"json_schema","json_schema":{"schema":{}}}',
      { type: 'json_schema', name: 'answer', schema: {} },
    ],
  ])('%s is a format without a column type', (text, format) => {
    expect(parseResponseFormat(text)).toEqual({ format, type: undefined });
  });

  it('that is a type makes the model answer in it, and the column too', () => {
    const parsed = parseResponseFormat('STRUCT<city: STRING>');
    expect(parsed.type).toEqual(parseSqlType('STRUCT<city: STRING>'));
    expect(parsed.format).toEqual({
      type: 'json_schema',
      name: 'answer',
      strict: true,
      schema: {
        type: 'object',
        properties: { city: { type: 'string' } },
        required: ['city'],
        additionalProperties: false,
      },
    });
  });

  it.each([
    ['{"type":', 'is not valid JSON'],
    ['{"type":"xml"}', "must be 'text', 'json_object', a type such as"],
    ['{"type":"json_schema"}', "must be 'text'"],
    ['{"type":"json_schema","json_schema":{"schema":[]}}', "must be 'text'"],
    ['JSON!', 'cannot be read'],
  ])('%s is refused as UNSUPPORTED_RETURN_TYPE with the reason', (text, reason) => {
    expect(() => parseResponseFormat(text)).toThrowError(
      expect.objectContaining({ code: 'UNSUPPORTED_RETURN_TYPE' }),
    );
    expect(() => parseResponseFormat(text)).toThrow(reason);
  });
});

describe('the format for a type', () => {
  it('wraps what is not an object, as providers only take objects', () => {
    expect(isWrapped(parseSqlType('INT'))).toBe(true);
    expect(isWrapped(parseSqlType('ARRAY<INT>'))).toBe(true);
    expect(isWrapped(parseSqlType('STRUCT<a: INT>'))).toBe(false);
    expect(isWrapped(parseSqlType('MAP<STRING, INT>'))).toBe(false);
    expect(formatFor(parseSqlType('INT'))).toMatchObject({
      schema: { type: 'object', properties: { result: { type: 'integer' } }, required: ['result'] },
    });
  });
});
