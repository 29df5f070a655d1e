// What the anthropic package for Python got from the server; the calls are in anthropic_calls.py.
import { describe, expect, it } from 'vitest';
import { stubChatText, stubTokens } from '../stub/answers.ts';
import { runScript } from './stage.ts';

const QUESTION = 'Which duck is this?';
const TEXT = stubChatText(QUESTION);

describe('anthropic (Python)', () => {
  const said = runScript('anthropic_calls.py');

  it('messages.create: text and usage of providers of both dialects', (test) => {
    const one = [TEXT, stubTokens(QUESTION), 'end_turn'];
    expect(said(test)).toEqual([one, one]);
  });

  it('messages.stream: text and usage, put together by the client', (test) => {
    expect(said(test)).toEqual([TEXT, stubTokens(TEXT)]);
  });

  it('messages.create(tools): a tool_use block', (test) => {
    expect(said(test)).toEqual(['tool_use', 'find_duck']);
  });

  it('messages.count_tokens: a number', (test) => {
    expect(said(test)).toBe(true);
  });

  it('AuthenticationError: 401 for a token that is not known', (test) => {
    expect(said(test)).toEqual({ status: 401, type: 'authentication_error', retry_after: null });
  });

  it('NotFoundError: 404 for an endpoint that does not exist', (test) => {
    expect(said(test)).toEqual({ status: 404, type: 'not_found_error', retry_after: null });
  });

  it('RateLimitError: 429 for the second call of a minute, with retry-after', (test) => {
    expect(said(test)).toEqual({
      status: 429,
      type: 'rate_limit_error',
      retry_after: expect.stringMatching(/^([1-9]|[1-5]\d|6[01])$/),
    });
  });

  it('BadRequestError: 400 for what a guardrail blocks', (test) => {
    expect(said(test)).toEqual({ status: 400, type: 'invalid_request_error', retry_after: null });
  });
});
