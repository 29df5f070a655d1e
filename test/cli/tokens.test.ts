import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { cli } from './fake-app.ts';

const create = (...flags: string[]) => ['tokens', 'create', '--principal', 'ann', ...flags];

describe('tokens', () => {
  it('create prints the token alone on standard output, and what else there is to say beside it', async () => {
    const outcome = await cli(create());
    expect([outcome.code, outcome.stdout]).toEqual([0, 'dsk_secret\n']);
    expect(outcome.stderr).toBe(
      'Token t1 of ann. It is shown this once; revoke it with: duckserve tokens revoke t1\n',
    );
  });

  it('create takes everything that a token can be', async () => {
    const flags = ['--group', 'a', '--group', 'b', '--admin', '--service-principal', '--scope', 'query'];
    const more = [
      '--scope',
      'sql',
      '--endpoint',
      'e',
      '--endpoint',
      'f',
      '--expires',
      '30d',
      '--comment',
      'ci',
    ];
    const outcome = await cli(create(...flags, ...more));
    expect(outcome.asked[0]).toEqual([
      'createToken',
      {
        principal: 'ann',
        kind: 'service_principal',
        groups: ['a', 'b'],
        isAdmin: true,
        scopes: ['query', 'sql'],
        endpoints: ['e', 'f'],
        lifetimeMs: 30 * 86_400_000,
        comment: 'ci',
      },
      'local-owner',
    ]);
  });

  it.each([
    [['tokens', 'create'], '--principal'],
    [create('--scope', 'root'), 'query, manage, sql'],
    [create('--expires', '30'), '30d, 12h or 45m'],
    [create('--expires', '9999999d'), 'at most 3650d'],
    [['tokens', 'revoke'], 'id'],
    [['tokens', 'crate'], 'Did you mean create?'],
  ])('%j is used wrongly, and nothing is opened', async (argv, message) => {
    const outcome = await cli(argv);
    expect([outcome.code, outcome.stdout, outcome.opened]).toEqual([2, '', []]);
    expect(outcome.stderr).toContain(message);
  });

  it('list shows everything but the text', async () => {
    for (const argv of [['tokens'], ['tokens', 'list']]) {
      const { stdout } = await cli(argv);
      expect(stdout).toContain('│ t1 │ dsk_ab… │ ann       │ query │ 1970-01-02 00:00 │ valid │ laptop  │');
    }
    const later = await cli(['tokens'], { nowMs: () => 86_400_000 });
    expect(later.stdout).toContain('expired');
    expect(JSON.parse((await cli(['tokens', 'list', '--format', 'json'])).stdout)).toEqual([
      {
        token_id: 't1',
        creation_time: 0,
        expiry_time: 86_400_000,
        revocation_time: null,
        service_principal: false,
        admin: false,
        principal: 'ann',
        groups: ['team'],
        scopes: ['query'],
        comment: 'laptop',
        prefix: 'dsk_ab',
        created_by: 'local',
      },
    ]);
  });

  it('revoke names the token by its id', async () => {
    const outcome = await cli(['tokens', 'revoke', 't1']);
    expect(outcome.asked[0]).toEqual(['revokeToken', 't1', 'local-owner']);
    expect([outcome.code, outcome.stderr]).toEqual([0, 'Revoked token t1.\n']);
  });
});

describe('where a server runs on the data directory', () => {
  it('it is asked, and the directory is not opened', async () => {
    const requests: unknown[] = [];
    const askServer = async (dataDir: string, request: object) => {
      requests.push([dataDir, request]);
      return { token_value: 'dsk_served', token_info: { token_id: 's1' }, token_infos: [] };
    };
    const created = await cli(create('--data', '/d', '--admin', '--expires', '12h'), { askServer });
    expect([created.stdout, created.opened, created.asked]).toEqual(['dsk_served\n', [], []]);
    await cli(['tokens', 'revoke', 'a/b', '--data', '/d'], { askServer });
    await cli(['tokens', '--data', '/d'], { askServer });
    expect(requests).toEqual([
      [
        '/d',
        {
          method: 'POST',
          path: '/api/2.0/token/create',
          body: { principal: 'ann', admin: true, lifetime_seconds: 43_200 },
        },
      ],
      ['/d', { method: 'DELETE', path: '/api/2.0/token-management/tokens/a%2Fb' }],
      ['/d', { method: 'GET', path: '/api/2.0/token-management/tokens' }],
    ]);
  });

  it('what it refuses is said, and is not tried another way', async () => {
    const askServer = async () => {
      throw new ServingError('RESOURCE_CONFLICT', "'ann' is a user already: choose another name.");
    };
    const outcome = await cli(create('--service-principal'), { askServer });
    expect([outcome.code, outcome.stdout, outcome.opened]).toEqual([1, '', []]);
    expect(outcome.stderr).toBe("error: 'ann' is a user already: choose another name. [RESOURCE_CONFLICT]\n");
  });
});
