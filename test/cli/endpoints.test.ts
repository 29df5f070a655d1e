// `duckserve endpoints` beyond creating: updating, policies, stopping, and specifications in files.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseSpec } from '../../src/cli/from-wire.ts';
import { cli } from './fake-app.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-cli-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function fileOf(content: unknown): string {
  const path = join(directory, 'spec.json');
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}
const askedOf = (asked: readonly (readonly unknown[])[], name: string) =>
  asked.find(([first]) => first === name);

describe('duckserve endpoints', () => {
  it('update serves another model, of the task that the endpoint has', async () => {
    const outcome = await cli(['endpoints', 'update', 'e', '--provider', 'openai', '--model', 'new']);
    expect([outcome.code, outcome.stderr]).toEqual([0, expect.stringContaining('Updated endpoint e')]);
    expect(askedOf(outcome.asked, 'updateEndpoint')).toEqual([
      'updateEndpoint',
      'e',
      { servedEntities: [{ externalModel: { name: 'new', provider: 'openai', task: 'llm/v1/chat' } }] },
    ]);
  });

  it('update takes several entities and their traffic from a file, in the words that get prints', async () => {
    const served_entities = [
      { name: 'a', entity_name: 'm', entity_version: '1', settings: { workload_size: 'Small' } },
      { name: 'b', external_model: { base_url: 'http://x', api_key: '{{env/K}}' } },
    ];
    const routes = [{ served_entity_name: 'a', traffic_percentage: 100 }];
    const outcome = await cli(['endpoints', 'update', 'e', '--config', fileOf({ served_entities, routes })]);
    expect(askedOf(outcome.asked, 'updateEndpoint')?.[2]).toEqual({
      servedEntities: [
        { name: 'a', entityName: 'm', entityVersion: '1', settings: { workload_size: 'Small' } },
        { name: 'b', externalModel: { baseUrl: 'http://x', apiKey: '{{env/K}}' } },
      ],
      routes: [{ servedEntityName: 'a', trafficPercentage: 100 }],
    });
  });

  it('create takes a file too', async () => {
    const path = fileOf({
      served_entities: [{ entity_name: 'm' }],
      ai_gateway: { fallback_config: { enabled: true } },
    });
    const outcome = await cli(['endpoints', 'create', 'e', '--config', path]);
    expect(askedOf(outcome.asked, 'createEndpoint')?.[1]).toEqual({
      name: 'e',
      servedEntities: [{ entityName: 'm' }],
      aiGateway: { fallback: { enabled: true } },
    });
  });

  it.each([
    [['update', 'e'], 'nothing to change'],
    [['update', 'e', '--config', 'x.json', '--model', 'm'], '--config has all of it'],
    [['update', 'e', '--model', 'm'], '--provider is missing'],
    [['gateway', 'e', '--set', 'x.json', '--clear'], 'exclude each other'],
    [['create', 'e', '--config', 'x.json', '--model', 'm'], '--config has all of it'],
  ])('refuses %j as used wrongly', async (args, problem) => {
    const outcome = await cli(['endpoints', ...args]);
    expect([outcome.code, outcome.stderr]).toEqual([2, expect.stringContaining(problem)]);
  });

  it('says what is wrong with a file, and repeats nothing of it', async () => {
    const gone = await cli(['endpoints', 'gateway', 'e', '--set', join(directory, 'gone.json')]);
    expect([gone.code, gone.stderr]).toEqual([1, expect.stringContaining('there is no such file')]);
    const broken = await cli(['endpoints', 'gateway', 'e', '--set', fileOf('{"key": "sk-secret", }')]);
    expect([broken.code, broken.stderr]).toEqual([1, expect.stringContaining('is not JSON')]);
    expect(broken.stderr).not.toContain('sk-secret');
    const list = await cli(['endpoints', 'gateway', 'e', '--set', fileOf([])]);
    expect(list.stderr).toContain('must be a JSON object');
  });

  it('gateway shows, sets and clears policies', async () => {
    expect((await cli(['endpoints', 'gateway', 'e'])).stdout.trim()).toBe('{}');
    const limits = { rate_limits: [{ key: 'user', calls: 5, renewal_period: 'minute' }] };
    const set = await cli(['endpoints', 'gateway', 'e', '--set', fileOf(limits)]);
    expect(askedOf(set.asked, 'setGateway')).toEqual([
      'setGateway',
      'e',
      { rateLimits: [{ key: 'user', calls: 5, renewalPeriod: 'minute' }] },
    ]);
    const clear = await cli(['endpoints', 'gateway', 'e', '--clear']);
    expect(askedOf(clear.asked, 'setGateway')?.[2]).toEqual({});
  });

  it.each(['stop', 'start'])('%s does so and says so', async (verb) => {
    const outcome = await cli(['endpoints', verb, 'e']);
    expect(askedOf(outcome.asked, `${verb}Endpoint`)).toEqual([`${verb}Endpoint`, 'e']);
    expect(outcome.stderr).toMatch(/St(opp|art)ed endpoint e\./);
  });
});

describe('a specification as people write it', () => {
  it('may use Databricks’ words for policies', () => {
    const text = JSON.stringify({
      usage_tracking_config: { enabled: true },
      inference_table_config: { enabled: true, table_name_prefix: 'p' },
      budgets: [{ amount: 1, renewal_period: 'day' }],
      hedging: { max_extra_percent: 5 },
    });
    expect(parseSpec(text, 'It')).toEqual({
      usageTracking: { enabled: true },
      inferenceTable: { enabled: true, tableNamePrefix: 'p' },
      budgets: [{ amount: 1, renewalPeriod: 'day' }],
      hedging: { maxExtraPercent: 5 },
    });
  });
});
