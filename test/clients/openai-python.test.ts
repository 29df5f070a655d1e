// What the openai package for Python got from the server; the calls are in openai_calls.py.
import { describe, expect, it } from 'vitest';
import { stubChatText, stubCompletionText, stubTokens } from '../stub/answers.ts';
import { runScript } from './stage.ts';

const QUESTION = 'Which duck is this?';
const TEXT = stubChatText(QUESTION);
const RETRY_AFTER = expect.stringMatching(/^([1-9]|[1-5]\d|6[01])$/);

describe('openai (Python)', () => {
  const said = runScript('openai_calls.py');

  it('chat.completions.create: text and usage, at each base URL', (test) => {
    const one = [TEXT, stubTokens(QUESTION), stubTokens(TEXT)];
    expect(said(test)).toEqual({ '/v1': one, '/serving-endpoints': one, '/ai-gateway/mlflow/v1': one });
  });

  it('chat.completions.create(stream): the text, usage in the last chunk', (test) => {
    expect(said(test)).toEqual({ text: TEXT, tokens: stubTokens(TEXT) });
  });

  it('chat.completions.create(cut stream): an APIError after the first pieces, where the provider is cut off', (test) => {
    const [text, code] = said(test) as [string, string];
    expect(TEXT.startsWith(text)).toBe(true);
    expect(text).not.toBe('');
    expect(code).toBe('UPSTREAM_ERROR');
  });

  it('chat.completions.create(tools): a call of the tool', (test) => {
    expect(said(test)).toEqual(['tool_calls', 'find_duck']);
  });

  it('chat.completions.parse: an object of the class', (test) => {
    expect(said(test)).toBe('Duck');
  });

  it('completions.create: the text', (test) => {
    expect(said(test)).toBe(stubCompletionText('Once'));
  });

  it('embeddings.create: vectors of the provider and of an embedded model, usage', (test) => {
    const lengths = [
      [64, 64],
      [256, 256],
    ];
    expect(said(test)).toEqual({ lengths, tokens: stubTokens('a duck') + stubTokens('a goose') });
  });

  it('responses.create: status and text', (test) => {
    expect(said(test)).toEqual(['completed', TEXT]);
  });

  it('responses.stream: events from created to completed, put together by the client', (test) => {
    expect(said(test)).toEqual(['response.created', 'response.completed', TEXT]);
  });

  it('models.list: what the caller may see, and nothing else', (test) => {
    expect(said(test)).toEqual({ chat: true, penguins: true, private: false });
  });

  it('AuthenticationError: 401 for a token that is not known', (test) => {
    expect(said(test)).toEqual({ status: 401, code: 'UNAUTHENTICATED', retry_after: null });
  });

  it('NotFoundError: 404 for an endpoint that does not exist', (test) => {
    expect(said(test)).toEqual({ status: 404, code: 'ENDPOINT_NOT_FOUND', retry_after: null });
  });

  it('PermissionDeniedError: 403 for an endpoint of somebody else', (test) => {
    expect(said(test)).toEqual({ status: 403, code: 'PERMISSION_DENIED', retry_after: null });
  });

  it('RateLimitError: 429 for the second call of a minute, with retry-after', (test) => {
    expect(said(test)).toEqual({ status: 429, code: 'RATE_LIMIT_EXCEEDED', retry_after: RETRY_AFTER });
  });

  it('BadRequestError: 400 for what a guardrail blocks', (test) => {
    expect(said(test)).toEqual({ status: 400, code: 'GUARDRAIL_TRIGGERED', retry_after: null });
  });
});
