// Policies of an endpoint over HTTP: gateway, limits, tags, notifications.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BASE, type Control, endpointOf, external, openControl } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
});
afterEach(() => control.close());

const create = (body: unknown) => control.ask('POST', BASE, body);
const get = async (name: string) => (await control.ask('GET', `${BASE}/${name}`)).body;

describe('policies', () => {
  beforeEach(async () => {
    await create(endpointOf('e', external()));
    await create(endpointOf('judge', external()));
  });
  const put = (body: object) => control.ask('PUT', `${BASE}/e/ai-gateway`, body);

  it('of the gateway come back as they were set, with our own beside them', async () => {
    const gateway = {
      usage_tracking_config: { enabled: true },
      inference_table_config: { enabled: true, catalog_name: 'c', schema_name: 's', table_name_prefix: 'p' },
      rate_limits: [
        { calls: 10, tokens: 1000, key: 'user', principal: 'a@b.c', renewal_period: 'minute' },
        { calls: 5, key: 'user_group', principal: 'team', renewal_period: 'minute' },
      ],
      guardrails: {
        input: {
          safety: true,
          pii: { behavior: 'BLOCK' },
          invalid_keywords: ['x'],
          valid_topics: ['y'],
          judge_endpoint: 'judge',
        },
        output: { pii: { behavior: 'MASK' }, safety: true, custom_endpoint: 'judge' },
      },
      fallback_config: { enabled: true },
      budgets: [{ key: 'endpoint', amount: 12.5, renewal_period: 'month' }],
      hedging: { quantile: 0.95, max_extra_percent: 5 },
      timeout_ms: 30_000,
    };
    const set = await put(gateway);
    expect([set.status, set.body]).toEqual([200, gateway]);
    expect((await get('e')).ai_gateway).toEqual(gateway);
    expect((await put({})).body).toEqual({});
    expect((await get('e')).ai_gateway).toBeUndefined();
  });

  it.each<[string, object, string[]]>([
    [
      'another period',
      { rate_limits: [{ calls: 1, renewal_period: 'hour' }] },
      ['rate_limits[0].renewal_period', "'minute'", '"hour"'],
    ],
    ['a limit of nothing', { rate_limits: [{ renewal_period: 'minute' }] }, ['rate_limits[0].calls']],
    [
      'a group without a name',
      { rate_limits: [{ calls: 1, key: 'user_group', renewal_period: 'minute' }] },
      ['rate_limits[0].principal'],
    ],
    [
      'one limit twice',
      {
        rate_limits: [
          { calls: 1, renewal_period: 'minute' },
          { calls: 2, renewal_period: 'minute' },
        ],
      },
      ['second limit for endpoint'],
    ],
    [
      'twenty-one limits',
      {
        rate_limits: Array.from({ length: 21 }, (_, i) => ({
          calls: 1,
          key: 'user',
          principal: `u${i}`,
          renewal_period: 'minute',
        })),
      },
      ['at most 20'],
    ],
    [
      'six groups',
      {
        rate_limits: Array.from({ length: 6 }, (_, i) => ({
          calls: 1,
          key: 'user_group',
          principal: `g${i}`,
          renewal_period: 'minute',
        })),
      },
      ['at most 5'],
    ],
    [
      'another behaviour',
      { guardrails: { input: { pii: { behavior: 'SHRUG' } } } },
      ['guardrails.input.pii.behavior', '"SHRUG"', 'BLOCK'],
    ],
    ['topics of answers', { guardrails: { output: { valid_topics: ['x'] } } }, ['guardrails.output']],
    ['a judge that is not there', { guardrails: { input: { judge_endpoint: 'gone' } } }, ["'gone'"]],
    ['itself as the judge', { guardrails: { input: { judge_endpoint: 'e' } } }, ["'e' itself"]],
    [
      'money of a week',
      { budgets: [{ amount: 1, renewal_period: 'week' }] },
      ['budgets[0].renewal_period', 'day'],
    ],
    ['negative money', { budgets: [{ amount: -1, renewal_period: 'day' }] }, ['budgets[0].amount', '-1']],
    ['hedging everything', { hedging: { quantile: 0.1, max_extra_percent: 5 } }, ['hedging.quantile', '0.1']],
    [
      'a table with quotes',
      { inference_table_config: { enabled: true, table_name_prefix: 'x"; DROP' } },
      ['table_name_prefix'],
    ],
    ['a field that is not known', { guardrail: {} }, ["'guardrail'"]],
  ])('refuse %s', async (_, body, parts) => {
    const refused = await put(body);
    expect(refused.status).toBe(400);
    for (const part of parts) expect(refused.body.message).toContain(part);
    expect((await get('e')).ai_gateway).toBeUndefined();
  });

  it('keep the name of an inference table that is written to', async () => {
    const table = (enabled: boolean, name: string) => ({
      inference_table_config: { enabled, table_name_prefix: name },
    });
    expect((await put(table(true, 'a'))).status).toBe(200);
    const refused = await put(table(true, 'b'));
    expect([refused.status, refused.body.message]).toEqual([
      400,
      expect.stringContaining('Disable it first'),
    ]);
    expect((await put(table(false, 'a'))).status).toBe(200);
    expect((await put(table(true, 'b'))).status).toBe(200);
  });

  it('of the older kind replace the limits and nothing else', async () => {
    await put({ fallback_config: { enabled: true } });
    const rate_limits = [{ calls: 7, key: 'endpoint', renewal_period: 'minute' }];
    const set = await control.ask('PUT', `${BASE}/e/rate-limits`, { rate_limits });
    expect(set.body).toEqual({ rate_limits });
    expect((await get('e')).ai_gateway).toEqual({ fallback_config: { enabled: true }, rate_limits });
  });

  it('tags are added, replaced and deleted', async () => {
    const patch = (body: object) => control.ask('PATCH', `${BASE}/e/tags`, body);
    await patch({ add_tags: [{ key: 'a', value: '1' }, { key: 'b' }] });
    const changed = await patch({ add_tags: [{ key: 'a', value: '2' }], delete_tags: ['b'] });
    expect(changed.body).toEqual({ tags: [{ key: 'a', value: '2' }] });
    expect((await patch({ add_tags: Array.from({ length: 20 }, (_, i) => ({ key: `k${i}` })) })).status).toBe(
      400,
    );
    expect((await get('e')).tags).toEqual([{ key: 'a', value: '2' }]);
  });

  it('notifications are kept and given back', async () => {
    const email_notifications = { on_update_success: ['a@b.c'] };
    const set = await control.ask('PATCH', `${BASE}/e/notifications`, { email_notifications });
    expect(set.body).toEqual({ name: 'e', email_notifications });
    expect((await get('e')).email_notifications).toEqual(email_notifications);
    const cleared = await control.ask('PATCH', `${BASE}/e/notifications`, {});
    expect(cleared.body).toEqual({ name: 'e', email_notifications: {} });
  });
});
