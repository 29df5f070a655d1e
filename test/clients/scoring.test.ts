// What bare HTTP got from the server, as MLflow's scoring server and KServe are asked; the calls are in
// scoring_calls.py.
import { describe, expect, it } from 'vitest';
import { runScript } from './stage.ts';

describe('requests (Python)', () => {
  const said = runScript('scoring_calls.py');

  it('POST /serving-endpoints/{name}/invocations(JSON): the species in each of the four forms', (test) => {
    const one = { predictions: ['Adelie'] };
    expect(said(test)).toEqual([one, one, one, one]);
  });

  it('POST /serving-endpoints/{name}/invocations(CSV): 342 rows, over 98 % right', (test) => {
    expect(said(test)).toEqual([342, true]);
  });

  it('POST /invocations: the only custom model', (test) => {
    expect(said(test)).toEqual([200, { predictions: ['Adelie'] }, 'penguins']);
  });

  it('GET /ping: and /health and /v2/health/ready, without a token', (test) => {
    expect(said(test)).toEqual([200, 200, 200]);
  });

  it('GET /version: a text', (test) => {
    expect(said(test)).toEqual([200, true]);
  });

  it('POST /v2/models/{name}/infer: two rows as a JSON tensor', (test) => {
    expect(said(test)).toEqual(['penguins', 'one', 'BYTES', ['Adelie', 'Adelie']]);
  });

  it('tokens: as Bearer, x-api-key, api-key and Basic; 401 without', (test) => {
    expect(said(test)).toEqual([200, 200, 200, 200, 401]);
  });

  it('errors: 400, 401, 403, 404, 415, 429 with retry-after, 400 with the record of a guardrail', (test) => {
    expect(said(test)).toEqual({
      none: [401, 'UNAUTHENTICATED'],
      wrong: [401, 'UNAUTHENTICATED'],
      stranger: [403, 'PERMISSION_DENIED'],
      gone: [404, 'RESOURCE_DOES_NOT_EXIST'],
      limited: [429, 'REQUEST_LIMIT_EXCEEDED', true],
      blocked: [400, 'BAD_REQUEST', true],
      malformed: [400, 'BAD_REQUEST'],
      type: [415, 'BAD_REQUEST'],
    });
  });
});
