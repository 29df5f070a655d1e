// What the Databricks SDK got from the server; the calls are in databricks_calls.py.
import { describe, expect, it } from 'vitest';
import { stubChatText, stubCompletionText, stubTokens } from '../stub/answers.ts';
import { runScript } from './stage.ts';

const TEXT = stubChatText('quack');

describe('databricks-sdk (Python)', () => {
  const said = runScript('databricks_calls.py');

  it('serving_endpoints.create_and_wait: ready, the implicit route, a reference in place of the key', (test) => {
    expect(said(test)).toEqual({
      ready: 'READY',
      creator: 'ann@example.org',
      task: 'llm/v1/chat',
      version: 1,
      deployment: 'DEPLOYMENT_READY',
      routes: [['first', 100]],
      holds_key: false,
      key: true,
    });
  });

  it('serving_endpoints.create: ResourceAlreadyExists for a name that is taken', (test) => {
    expect(said(test)).toEqual(['ResourceAlreadyExists', 'RESOURCE_ALREADY_EXISTS']);
  });

  it('serving_endpoints.get: description, tags, permission, state', (test) => {
    expect(said(test)).toEqual({
      name: 'made-by-databricks-sdk',
      description: 'made by a client',
      permission: 'CAN_MANAGE',
      tags: [{ key: 'team', value: 'ducks' }],
      update: 'NOT_UPDATING',
    });
  });

  it('serving_endpoints.list: everything for an administrator, and not for others', (test) => {
    expect(said(test)).toEqual({ all: [true, true, true], other: false });
  });

  it('serving_endpoints.update_config_and_wait: the second version answers by its traffic split', (test) => {
    expect(said(test)).toEqual({ version: 2, entities: ['first', 'second'], served_model_name: 'second' });
  });

  it('serving_endpoints.update_config: a route to nobody is refused, the version stays', (test) => {
    expect(said(test)).toEqual({ error: 'INVALID_PARAMETER_VALUE', version: 2 });
  });

  it('serving_endpoints.put_ai_gateway: limits and guardrails come back, also by get', (test) => {
    expect(said(test)).toEqual({
      answer: {
        usage_tracking_config: { enabled: true },
        guardrails: { input: { pii: { behavior: 'BLOCK' } } },
        rate_limits: [{ calls: 100, key: 'endpoint', renewal_period: 'minute' }],
      },
      get: true,
    });
  });

  it('serving_endpoints.patch: tags after adding one and deleting one', (test) => {
    expect(said(test)).toEqual([{ key: 'stage', value: 'test' }]);
  });

  it('serving_endpoints.get_permission_levels: the three levels', (test) => {
    expect(said(test)).toEqual(['CAN_VIEW', 'CAN_QUERY', 'CAN_MANAGE']);
  });

  it('serving_endpoints.set_permissions: somebody who was refused may query', (test) => {
    expect(said(test)).toEqual({
      before: ['PermissionDenied', 'PERMISSION_DENIED'],
      levels: ['CAN_QUERY'],
      type: 'serving-endpoint',
      after: TEXT,
    });
  });

  it('serving_endpoints.update_permissions: a group beside those who were there', (test) => {
    expect(said(test)).toEqual(['admins', 'ann@example.org', 'bob@example.org', 'clients']);
  });

  it('serving_endpoints.get_permissions: the same list', (test) => {
    expect(said(test)).toBe(4);
  });

  it('serving_endpoints.query(messages): text, usage, served_model_name', (test) => {
    expect(said(test)).toEqual([TEXT, stubTokens('quack'), 'stub-chat']);
  });

  it('serving_endpoints.query(prompt): the text', (test) => {
    expect(said(test)).toBe(stubCompletionText('Once'));
  });

  it('serving_endpoints.query(input): vectors of the provider and of an embedded model', (test) => {
    expect(said(test)).toEqual([64, 256]);
  });

  it('serving_endpoints.query(dataframe_records, dataframe_split, instances, inputs): the species each time', (test) => {
    expect(said(test)).toEqual([['Adelie'], ['Adelie'], ['Adelie'], ['Adelie']]);
  });

  it('serving_endpoints.query(stream): JSONDecodeError of the SDK, which reads a stream as one JSON text', (test) => {
    expect(said(test)).toBe('JSONDecodeError');
  });

  it('api_client.do(stream): the way out, events as they are', (test) => {
    expect(said(test)).toEqual([true, 'data: [DONE]']);
  });

  it('serving_endpoints.get_open_ai_client: a chat with the client it makes', (test) => {
    expect(said(test)).toBe(TEXT);
  });

  it('serving_endpoints.get_langchain_chat_open_ai_client: a chat with the client it makes', (test) => {
    expect(said(test)).toBe(TEXT);
  });

  it('serving_endpoints.logs: that the entity is ready, and the request that was refused', (test) => {
    expect(said(test)).toMatch(/second .*is ready[\s\S]*failed: PERMISSION_DENIED/);
  });

  it('serving_endpoints.build_logs: something', (test) => {
    expect(said(test)).toBe(true);
  });

  it('serving_endpoints.export_metrics: requests and latencies', (test) => {
    expect(said(test)).toEqual([true, true]);
  });

  it('serving_endpoints.get_open_api: OpenAPI 3.1 with the path of the served entity', (test) => {
    expect(said(test)).toEqual(['3.1.0', 'penguins', ['/served-models/penguins/invocations']]);
  });

  it('serving_endpoints.delete: gone afterwards', (test) => {
    expect(said(test)).toEqual(['ResourceDoesNotExist', 'RESOURCE_DOES_NOT_EXIST']);
  });

  it('current_user.me: name and groups', (test) => {
    expect(said(test)).toEqual(['bob@example.org', ['clients']]);
  });

  it('tokens.create: a token that opens, is listed, and no longer opens when it is deleted', (test) => {
    expect(said(test)).toEqual(['bob@example.org', true, ['Unauthenticated', 'UNAUTHENTICATED']]);
  });

  it('statement_execution.execute_statement: rows of a statement that asks an endpoint', (test) => {
    expect(said(test)).toEqual([['from SQL']]);
  });

  it('errors: 401, 403, 404, 400 for a bad parameter and for what a guardrail blocks', (test) => {
    expect(said(test)).toEqual({
      '401': ['Unauthenticated', 'UNAUTHENTICATED'],
      '403': ['PermissionDenied', 'PERMISSION_DENIED'],
      '404': ['ResourceDoesNotExist', 'RESOURCE_DOES_NOT_EXIST'],
      '400': ['InvalidParameterValue', 'INVALID_PARAMETER_VALUE'],
      guardrail: ['BadRequest', 'BAD_REQUEST'],
    });
  });

  it('errors(501): what is not offered', (test) => {
    const one = ['NotImplemented', 'NOT_IMPLEMENTED'];
    expect(said(test)).toEqual([one, one]);
  });

  it('errors(429): the SDK waits as long as retry-after says, then gives up', (test) => {
    expect(said(test)).toEqual({
      cause: ['RequestLimitExceeded', 'REQUEST_LIMIT_EXCEEDED'],
      waited: [true],
    });
  });
});
