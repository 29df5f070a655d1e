import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { Identity } from '#governance/identity/identity.ts';
import { parseLifetime } from '#governance/identity/token-text.ts';
import { endpointOf, NOW_MS, openTestIdentity } from './identity-support.ts';

const DAY_MS = 86_400_000;
const failure = async (act: () => unknown): Promise<{ code?: string; message: string }> => {
  try {
    await act();
  } catch (error) {
    return error as { code: string; message: string };
  }
  return { message: 'nothing was refused' };
};

describe('tokens', () => {
  it('are text once, and a hash ever after', async () => {
    const { identity, store } = await openTestIdentity();
    const { token, info } = await identity.createToken({ principal: 'ann', comment: 'laptop' }, LOCAL_OWNER);
    expect(token).toMatch(/^dsk_[\w-]{43}$/);
    expect(identity.authenticate(token)).toMatchObject({ name: 'ann', kind: 'user', isAdmin: false });
    expect(info).toMatchObject({ principal: 'ann', comment: 'laptop', prefix: token.slice(0, 6) });
    const kept = JSON.stringify([...store.documents.values(), identity.listTokens(), identity.snapshot()]);
    expect(kept).not.toContain(token.slice(6));
    expect(JSON.stringify([...store.documents.values()])).toContain(sha256Hex(token));
    expect(JSON.stringify(identity.listTokens())).not.toContain(sha256Hex(token));
  });

  it('open nothing once they are revoked, expired, or were never given', async () => {
    const { identity, clock } = await openTestIdentity();
    const forADay = await identity.createToken({ principal: 'ann', lifetimeMs: DAY_MS }, LOCAL_OWNER);
    clock.nowMs += 1;
    const other = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    clock.nowMs += DAY_MS - 2;
    expect(identity.authenticate(forADay.token)).toMatchObject({ name: 'ann' });
    clock.nowMs += 1;
    expect(await failure(() => identity.authenticate(forADay.token))).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: 'The token expired on 2026-01-02T00:00:00.000Z: create a new one.',
    });
    await identity.revokeToken(other.info.id, LOCAL_OWNER);
    expect((await failure(() => identity.authenticate(other.token))).message).toContain('was revoked');
    expect((await failure(() => identity.authenticate('dsk_unknown'))).message).toContain('is not known');
    expect(identity.listTokens().map(({ revokedAtMs }) => revokedAtMs)).toEqual([null, NOW_MS + DAY_MS]);
  });

  it('outlive the process', async () => {
    const { identity, store } = await openTestIdentity();
    const { token } = await identity.createToken({ principal: 'ann', groups: ['team'] }, LOCAL_OWNER);
    await identity.setPermissions(endpointOf('e'), [{ kind: 'group', name: 'team', level: 'CAN_QUERY' }]);
    const again = (await openTestIdentity({}, store)).identity;
    const ann = again.authenticate(token) as Principal;
    expect(ann).toEqual(identity.authenticate(token));
    expect(again.levelOf(ann, endpointOf('e'))).toBe('CAN_QUERY');
    expect(again.isOpen).toBe(false);
  });

  it('are the same principal object from one request to the next, until the principal changes', async () => {
    const { identity } = await openTestIdentity();
    const { token } = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const before = identity.authenticate(token);
    expect(identity.authenticate(token)).toBe(before);
    await identity.createToken({ principal: 'ann', groups: ['team'], isAdmin: true }, LOCAL_OWNER);
    expect(identity.authenticate(token)).toMatchObject({ groups: ['team'], isAdmin: true });
  });

  it('add groups and rights to a principal, and never take any away', async () => {
    const { identity } = await openTestIdentity();
    await identity.createToken({ principal: 'ann', groups: ['a', 'b'], isAdmin: true }, LOCAL_OWNER);
    await identity.createToken({ principal: 'ann', groups: ['b', 'c'] }, LOCAL_OWNER);
    const [ann] = identity.listPrincipals('user');
    expect(ann).toMatchObject({ name: 'ann', groups: ['a', 'b', 'c'], isAdmin: true });
    expect(identity.listGroups().map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  });

  it.each([
    [{ principal: '' }, 'INVALID_PARAMETER', '1 to 200 characters'],
    [{ principal: ' ann' }, 'INVALID_PARAMETER', 'no blanks around'],
    [{ principal: 'an\u202en' }, 'INVALID_PARAMETER', 'invisible'],
    [{ principal: 'ann\nbob' }, 'INVALID_PARAMETER', 'invisible'],
    [{ principal: 'x'.repeat(201) }, 'INVALID_PARAMETER', '1 to 200'],
    [{ principal: 'duckserve' }, 'INVALID_PARAMETER', 'itself uses'],
    [{ principal: 'ann', groups: ['admins'] }, 'INVALID_PARAMETER', '--admin'],
    [{ principal: 'ann', groups: ['users'] }, 'INVALID_PARAMETER', 'Everybody'],
    [{ principal: 'ann', scopes: ['root'] }, 'INVALID_PARAMETER', 'query, manage, sql'],
    [{ principal: 'ann', scopes: [] }, 'INVALID_PARAMETER', 'at least one'],
    [{ principal: 'ann', endpoints: [] }, 'INVALID_PARAMETER', 'at least one endpoint'],
    [{ principal: 'ann', lifetimeMs: -1 }, 'INVALID_PARAMETER', '30d'],
    [{ principal: 'ann', lifetimeMs: Number.NaN }, 'INVALID_PARAMETER', '30d'],
    [{ principal: 'ann', comment: 'a\nb' }, 'INVALID_PARAMETER', 'one line'],
    [{ principal: 'bot', kind: 'user' as const }, 'RESOURCE_CONFLICT', 'a service principal already'],
  ])('of %j are refused as %s', async (request, code, message) => {
    const { identity, store } = await openTestIdentity();
    await identity.createToken({ principal: 'bot', kind: 'service_principal' }, LOCAL_OWNER);
    const before = store.documents.size;
    expect(await failure(() => identity.createToken(request, LOCAL_OWNER))).toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
    expect(store.documents.size).toBe(before);
  });

  it('are made by administrators for all, by others for themselves, and by restricted tokens for nobody', async () => {
    const { identity } = await openTestIdentity();
    const ann = identity.authenticate(
      (await identity.createToken({ principal: 'ann' }, LOCAL_OWNER)).token,
    ) as Principal;
    const mine = await identity.createToken({ comment: 'second' }, ann);
    expect(mine.info).toMatchObject({ principal: 'ann', createdBy: 'ann', isAdmin: false });
    for (const request of [
      { principal: 'bob' },
      { groups: ['team'] },
      { isAdmin: true },
      { kind: 'service_principal' as const },
    ]) {
      expect(await failure(() => identity.createToken(request, ann))).toMatchObject({
        code: 'PERMISSION_DENIED',
        message: expect.stringContaining("'ann' may create tokens for themselves alone"),
      });
    }
    for (const restricted of [
      { ...LOCAL_OWNER, scopes: ['query'] } as const,
      { ...LOCAL_OWNER, endpoints: ['e'] },
    ]) {
      expect(await failure(() => identity.createToken({}, restricted))).toMatchObject({
        code: 'PERMISSION_DENIED',
      });
    }
  });

  it('of others cannot be told from those that do not exist, and cannot be revoked', async () => {
    const { identity } = await openTestIdentity();
    const { token } = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const bobs = await identity.createToken({ principal: 'bob' }, LOCAL_OWNER);
    const ann = identity.authenticate(token) as Principal;
    const refused = await failure(() => identity.revokeToken(bobs.info.id, ann));
    const unknown = await failure(() => identity.revokeToken('0'.repeat(16), ann));
    expect(refused).toMatchObject({ code: 'NOT_FOUND' });
    expect(refused.message.replace(bobs.info.id, 'X')).toBe(unknown.message.replace('0'.repeat(16), 'X'));
    expect(identity.authenticate(bobs.token)).toMatchObject({ name: 'bob' });
  });

  it('are not there when the store could not write them', async () => {
    const { identity, store } = await openTestIdentity();
    store.failure = new Error('disk full');
    expect((await failure(() => identity.createToken({ principal: 'ann' }, LOCAL_OWNER))).message).toBe(
      'disk full',
    );
    expect([identity.listTokens(), identity.isOpen]).toEqual([[], true]);
    store.failure = undefined;
    await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    expect(identity.listTokens()).toHaveLength(1);
  });

  it('that are made up open nothing, whatever they hold', async () => {
    const { identity } = await openTestIdentity();
    const { token } = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const wild = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(
        "' OR 1=1 --",
        '__proto__',
        '%00',
        `${token} `,
        token.slice(0, -1),
        token.toUpperCase(),
      ),
      fc.string({ unit: 'binary', minLength: 16_385, maxLength: 17_000 }),
    );
    await fc.assert(
      fc.asyncProperty(wild, async (text) => {
        fc.pre(text !== token);
        const refused = await failure(() => identity.authenticate(text));
        expect(refused.code).toBe('UNAUTHENTICATED');
        if (text.length > 20) expect(refused.message).not.toContain(text);
      }),
      { numRuns: 60 },
    );
  });

  it('of a megabyte are refused by their length, before they are hashed', async () => {
    const { identity } = await openTestIdentity();
    const refused = await failure(() => identity.authenticate('x'.repeat(1_000_000)));
    expect(refused).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: expect.stringContaining('1000000 characters'),
    });
  });
});

describe('the door', () => {
  it('is open until the first token, and never again', async () => {
    const { identity } = await openTestIdentity();
    expect(identity.isOpen).toBe(true);
    const { info } = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    expect(identity.isOpen).toBe(false);
    await identity.revokeToken(info.id, LOCAL_OWNER);
    expect(identity.isOpen).toBe(false);
  });

  it('knows the owner by the hashes of DUCKSERVE_TOKENS, and says when one is none', async () => {
    const { identity } = await openTestIdentity({ DUCKSERVE_TOKENS: ` ${sha256Hex('a').toUpperCase()}, ` });
    expect(identity.isOpen).toBe(false);
    expect(identity.authenticate('a')).toBe(LOCAL_OWNER);
    const refused = await failure(() => openTestIdentity({ DUCKSERVE_TOKENS: 'my-secret-token' }));
    expect(refused).toMatchObject({ code: 'INVALID_PARAMETER', message: expect.stringContaining('entry 1') });
    expect(refused.message).not.toContain('my-secret-token');
  });

  it('takes lifetimes in days, hours and minutes', () => {
    expect(['30d', '12h', '45m'].map(parseLifetime)).toEqual([30 * DAY_MS, DAY_MS / 2, 2_700_000]);
    for (const text of ['', '30', '0d', '-1d', '1y', '1.5h', '3651d', '1d1h', '9999999999m']) {
      expect(() => parseLifetime(text)).toThrow(JSON.stringify(text));
    }
  });
});

describe('permissions', () => {
  const entry = (
    kind: 'user' | 'group' | 'service_principal',
    name: string,
    level = 'CAN_QUERY' as const,
  ) => ({
    kind,
    name,
    level,
  });
  const open = async () => {
    const setting = await openTestIdentity();
    const token = async (principal: string, more: object = {}) =>
      setting.identity.authenticate(
        (await setting.identity.createToken({ principal, ...more }, LOCAL_OWNER)).token,
      ) as Principal;
    return { ...setting, token };
  };

  it('are replaced by set, merged by patch, and gone with their endpoint', async () => {
    const { identity, store, token } = await open();
    const ann = await token('ann', { groups: ['team'] });
    await token('bot', { kind: 'service_principal' });
    const endpoint = endpointOf('e');
    expect(identity.levelOf(ann, endpoint)).toBeUndefined();
    await identity.setPermissions(endpoint, [entry('group', 'team'), entry('service_principal', 'bot')]);
    await identity.patchPermissions(endpoint, [{ kind: 'user', name: 'ann', level: 'CAN_VIEW' }]);
    await identity.patchPermissions(endpoint, [{ kind: 'group', name: 'team', level: 'CAN_MANAGE' }]);
    expect(identity.permissionsOf(endpoint)).toEqual([
      { kind: 'group', name: 'team', level: 'CAN_MANAGE' },
      entry('service_principal', 'bot'),
      { kind: 'user', name: 'ann', level: 'CAN_VIEW' },
    ]);
    await identity.setPermissions(endpoint, [entry('user', 'ann')]);
    expect(identity.permissionsOf(endpoint)).toEqual([entry('user', 'ann')]);
    expect(identity.visible(ann, [endpoint, endpointOf('f')])).toEqual([endpoint]);
    await identity.keepEndpoints(['id-of-other']);
    expect(identity.permissionsOf(endpoint)).toEqual([]);
    expect([...store.documents.keys()].filter((key) => key.startsWith('acl'))).toEqual([]);
  });

  it('that were just written decide the next call', async () => {
    const { identity, token } = await open();
    const ann = await token('ann');
    const endpoint = endpointOf('e');
    expect((await failure(() => identity.authorize(ann, endpoint, 'query'))).code).toBe('PERMISSION_DENIED');
    await identity.setPermissions(endpoint, [entry('user', 'ann')]);
    identity.authorize(ann, endpoint, 'query');
    await identity.setPermissions(endpoint, []);
    expect((await failure(() => identity.authorize(ann, endpoint, 'query'))).code).toBe('PERMISSION_DENIED');
  });

  it('leave out what follows from the rules, and refuse less than that', async () => {
    const { identity, token } = await open();
    await token('bob');
    const endpoint = endpointOf('e', { creator: 'bob' });
    const manage = 'CAN_MANAGE' as const;
    await identity.setPermissions(endpoint, [
      { kind: 'user', name: 'bob', level: manage },
      { kind: 'group', name: 'admins', level: manage },
    ]);
    expect(identity.permissionsOf(endpoint)).toEqual([]);
    expect(identity.describePermissions(endpoint)).toEqual([
      { kind: 'user', name: 'bob', level: manage, isFixed: false },
      { kind: 'group', name: 'admins', level: manage, isFixed: true },
    ]);
    for (const less of [entry('user', 'bob'), entry('group', 'admins')]) {
      expect((await failure(() => identity.setPermissions(endpoint, [less]))).message).toContain(
        'always has CAN_MANAGE',
      );
    }
  });

  it.each([
    [[entry('user', 'nobody')], 'NOT_FOUND', "no user 'nobody'"],
    [[entry('group', 'nobody')], 'NOT_FOUND', "no group 'nobody'"],
    [[entry('service_principal', 'ann')], 'INVALID_PARAMETER', "name it in 'user_name'"],
    [[entry('user', 'ann', 'CAN_FLY' as never)], 'INVALID_PARAMETER', 'CAN_VIEW, CAN_QUERY, CAN_MANAGE'],
    [[entry('user', 'ann'), entry('user', 'ann')], 'INVALID_PARAMETER', 'twice'],
  ])('of %j are refused as %s', async (entries, code, message) => {
    const { identity, token } = await open();
    await token('ann');
    expect(await failure(() => identity.setPermissions(endpointOf('e'), entries))).toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });

  it('of what is built in cannot be changed', async () => {
    const { identity } = await open();
    const builtIn = endpointOf('e', { isEmbedded: true });
    expect(await failure(() => identity.setPermissions(builtIn, []))).toMatchObject({
      code: 'RESOURCE_CONFLICT',
    });
  });
});

describe('a process without the store', () => {
  it('stays equal by the changes that it is told', async () => {
    const { identity, clock } = await openTestIdentity();
    const first = await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const copy = new Identity({
      store: { transact: () => Promise.reject(new Error('none')) },
      clock,
      env: {},
    });
    copy.apply(structuredClone(identity.snapshot()));
    identity.onChange((changes) => copy.apply(structuredClone(changes)));
    expect(copy.authenticate(first.token)).toEqual(identity.authenticate(first.token));
    const second = await identity.createToken({ principal: 'cid', groups: ['team'] }, LOCAL_OWNER);
    await identity.setPermissions(endpointOf('e'), [{ kind: 'group', name: 'team', level: 'CAN_QUERY' }]);
    await identity.revokeToken(first.info.id, LOCAL_OWNER);
    expect(copy.levelOf(copy.authenticate(second.token) as Principal, endpointOf('e'))).toBe('CAN_QUERY');
    expect((await failure(() => copy.authenticate(first.token))).message).toContain('was revoked');
    expect(copy.snapshot()).toEqual(identity.snapshot());
  });
});
