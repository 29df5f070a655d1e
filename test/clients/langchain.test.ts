// What LangChain got from the server; the calls are in langchain_calls.py.
import { describe, expect, it } from 'vitest';
import { stubChatText, stubTokens } from '../stub/answers.ts';
import { runScript } from './stage.ts';

const QUESTION = 'Which duck is this?';
const TEXT = stubChatText(QUESTION);

describe('langchain-openai (Python)', () => {
  const said = runScript('langchain_calls.py');

  it('ChatOpenAI.invoke: text and usage', (test) => {
    expect(said(test)).toEqual([TEXT, stubTokens(QUESTION), stubTokens(TEXT)]);
  });

  it('ChatOpenAI.stream: the text, usage at the end', (test) => {
    expect(said(test)).toEqual([TEXT, stubTokens(TEXT)]);
  });

  it('ChatOpenAI.batch: two texts', (test) => {
    expect(said(test)).toEqual([TEXT, TEXT]);
  });

  it('ChatOpenAI.bind_tools: a call of the tool, its result sent back, the text', (test) => {
    expect(said(test)).toEqual(['find_duck', ['city'], TEXT]);
  });

  it('ChatOpenAI.with_structured_output: an object of the class, by schema and by function', (test) => {
    expect(said(test)).toEqual(['Duck', 'Duck']);
  });

  it('ChatOpenAI.invoke(responses): text by the Responses API', (test) => {
    expect(said(test)).toBe(TEXT);
  });

  it('OpenAIEmbeddings.embed_documents: vectors of the provider and of an embedded model', (test) => {
    expect(said(test)).toEqual([
      [64, 64],
      [256, 256],
    ]);
  });

  it('OpenAIEmbeddings.embed_query: a vector', (test) => {
    expect(said(test)).toBe(64);
  });

  it('errors: 401 for a wrong token, 404 for no endpoint, 400 for what a guardrail blocks', (test) => {
    expect(said(test)).toEqual({
      '401': { status: 401, code: 'UNAUTHENTICATED', retry_after: null },
      '404': { status: 404, code: 'ENDPOINT_NOT_FOUND', retry_after: null },
      '400': { status: 400, code: 'GUARDRAIL_TRIGGERED', retry_after: null },
    });
  });

  it('RateLimitError: 429 for the second call of a minute, with retry-after', (test) => {
    const retryAfter = expect.stringMatching(/^([1-9]|[1-5]\d|6[01])$/);
    expect(said(test)).toEqual({ status: 429, code: 'RATE_LIMIT_EXCEEDED', retry_after: retryAfter });
  });
});
