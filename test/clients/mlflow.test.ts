// What MLflow's deployments client for Databricks got from the server; the calls are in mlflow_calls.py.
import { describe, expect, it } from 'vitest';
import { stubChatText, stubCompletionText, stubTokens } from '../stub/answers.ts';
import { runScript } from './stage.ts';

describe('mlflow-skinny (Python)', () => {
  const said = runScript('mlflow_calls.py');

  it('create_endpoint: ready, with an external model', (test) => {
    expect(said(test)).toEqual(['made-by-mlflow', 'READY', 'EXTERNAL_MODEL', 'DEPLOYMENT_READY']);
  });

  it('create_endpoint(name): the older form', (test) => {
    expect(said(test)).toBe('made-by-older-mlflow');
  });

  it('get_endpoint: name and tags, and no key of the provider', (test) => {
    expect(said(test)).toEqual(['made-by-mlflow', [{ key: 'team', value: 'ducks' }], false]);
  });

  it('list_endpoints: that one and others', (test) => {
    expect(said(test)).toEqual([true, true]);
  });

  it('update_endpoint_config: the second version with another entity', (test) => {
    expect(said(test)).toEqual([2, ['second']]);
  });

  it('update_endpoint_tags: tags after adding one and deleting one', (test) => {
    expect(said(test)).toEqual({ tags: [{ key: 'stage', value: 'test' }] });
  });

  it('update_endpoint_rate_limits: the limits as they were sent', (test) => {
    expect(said(test)).toEqual({ rate_limits: [{ calls: 50, key: 'user', renewal_period: 'minute' }] });
  });

  it('update_endpoint_ai_gateway: the fields as they were sent, also by get_endpoint', (test) => {
    expect(said(test)).toEqual({ same: true, get: true });
  });

  it('predict(messages): text and usage', (test) => {
    expect(said(test)).toEqual([stubChatText('quack'), stubTokens('quack')]);
  });

  it('predict(prompt): the text', (test) => {
    expect(said(test)).toBe(stubCompletionText('Once'));
  });

  it('predict(input): vectors of the provider and of an embedded model', (test) => {
    expect(said(test)).toEqual([64, 256]);
  });

  it('predict(dataframe_records, dataframe_split, instances, inputs): the species each time', (test) => {
    expect(said(test)).toEqual([['Adelie'], ['Adelie'], ['Adelie'], ['Adelie']]);
  });

  it('predict_stream: the text in pieces', (test) => {
    expect(said(test)).toEqual([stubChatText('quack'), true]);
  });

  it('HTTPError: 401, 403, 404, and 400 for what a guardrail blocks', (test) => {
    expect(said(test)).toEqual({
      '401': [401, 'UNAUTHENTICATED'],
      '403': [403, 'PERMISSION_DENIED'],
      '404': [404, 'RESOURCE_DOES_NOT_EXIST'],
      '400': [400, 'BAD_REQUEST'],
    });
  });

  it('HTTPError(429): for the third call of a minute, with retry-after', (test) => {
    expect(said(test)).toEqual([429, 'REQUEST_LIMIT_EXCEEDED', true]);
  });

  it('delete_endpoint: gone afterwards', (test) => {
    expect(said(test)).toEqual([404, 'RESOURCE_DOES_NOT_EXIST']);
  });
});
