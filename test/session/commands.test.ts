// CALL duckserve_...(): arguments by place and by name, computed by DuckDB, and tables given back.
import { afterEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Command } from '#session/commands.ts';
import { type Harness, openHarness } from './harness.ts';

let harness: Harness;
let heard: Readonly<Record<string, Json>>[];
afterEach(() => harness.close());

const create: Command = {
  name: 'create_thing',
  parameters: ['name', 'config', 'size'],
  description: 'Makes a thing.',
  run: async (args, principal) => {
    heard.push(args);
    if (args.name === 'taken') throw new ServingError('ALREADY_EXISTS', 'taken');
    return {
      columns: [
        { name: 'who', type: 'VARCHAR' },
        { name: 'args', type: 'JSON' },
      ],
      rows: [[principal.name, JSON.stringify(args)]],
    };
  },
};
const quiet: Command = {
  name: 'quiet',
  parameters: [],
  description: 'Says nothing.',
  run: async () => undefined,
};
const open = async () => {
  heard = [];
  harness = await openHarness({}, {}, { commands: [create, quiet] });
  return harness.session;
};

describe('a command', () => {
  it.each<[string, Record<string, Json>]>([
    ["CALL duckserve_create_thing('a')", { name: 'a' }],
    ["CALL duckserve_create_thing('a', {'x': [1, 2]}, 3)", { name: 'a', config: { x: [1, 2] }, size: 3 }],
    ["CALL duckserve_create_thing(size => 1 + 2, name := upper('b'))", { size: 3, name: 'B' }],
    ["call DUCKSERVE_CREATE_THING('a', size => NULL)", { name: 'a', size: null }],
    [
      "CALL duckserve_create_thing('it''s, (not) split', config => MAP {'k': 1.5})",
      { name: "it's, (not) split", config: { k: 1.5 } },
    ],
    [
      'CALL duckserve_create_thing((SELECT max(i)::VARCHAR FROM range(3) t(i)), $${"a": 1}$$)',
      { name: '2', config: '{"a": 1}' },
    ],
    ['CALL duckserve_create_thing()', {}],
    ['CALL duckserve_create_thing', {}],
  ])('takes %s', async (sql, args) => {
    const session = await open();
    const [result] = await session.run(sql);
    expect(heard).toEqual([args]);
    expect(result?.columns).toEqual([
      { name: 'who', type: 'VARCHAR' },
      { name: 'args', type: 'JSON' },
    ]);
    expect([...(result?.rows() ?? [])]).toEqual([['p', JSON.stringify(args)]]);
  });

  it('without a table is just done', async () => {
    const session = await open();
    const [result] = await session.run('CALL duckserve_quiet()');
    expect(result).toMatchObject({ kind: 'done', rowCount: 0, columns: [] });
  });

  it.each<[string, string, string]>([
    [
      'CALL duckserve_nothing()',
      'NOT_FOUND',
      'There is no command duckserve_nothing. There are: duckserve_create_thing, duckserve_quiet.',
    ],
    [
      "CALL duckserve_create_thing(colour => 'red')",
      'INVALID_PARAMETER',
      'duckserve_create_thing takes name, config, size; it does not take colour',
    ],
    [
      "CALL duckserve_create_thing('a', 1, 2, 3)",
      'INVALID_PARAMETER',
      'it does not take that many arguments',
    ],
    ["CALL duckserve_create_thing('a', name => 'b')", 'INVALID_PARAMETER', 'name is given twice'],
    ['CALL duckserve_create_thing(name => )', 'INVALID_PARAMETER', 'name is given no value'],
    ['CALL duckserve_create_thing(nothing_like_that(1))', 'SQL_ERROR', 'nothing_like_that'],
    ["CALL duckserve_create_thing('taken')", 'ALREADY_EXISTS', 'taken'],
  ])('refuses %s as %s: %s', async (sql, code, message) => {
    const session = await open();
    await expect(session.run(sql)).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  });
});
