import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Action } from '#core/policies.ts';
import {
  type AccessList,
  authorize,
  authorizeCreate,
  EVERYBODY,
  levelOf,
  PERMISSION_LEVELS,
  type PermissionLevel,
  requireSql,
} from '#governance/access.ts';
import { createEmbedded } from '#registry/embedded.ts';
import { endpointOf } from './identity-support.ts';

const ann: Principal = { id: 'u1', name: 'ann', kind: 'user', isAdmin: false, groups: ['team'] };
const [embedded] = createEmbedded().endpoints;
if (embedded === undefined) throw new Error('there are built-in endpoints');
const theirs = endpointOf('e');
const ACTIONS: readonly Action[] = ['view', 'query', 'manage'];

const listOf = (entries: Partial<Record<keyof AccessList, Readonly<Record<string, PermissionLevel>>>>) => ({
  users: new Map(Object.entries(entries.users ?? {})),
  groups: new Map(Object.entries(entries.groups ?? {})),
  servicePrincipals: new Map(Object.entries(entries.servicePrincipals ?? {})),
});
const refusal = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    expect(error).toMatchObject({ code: 'PERMISSION_DENIED' });
    return (error as Error).message;
  }
  return '';
};

describe('access', () => {
  it('is complete for the local owner and administrators', () => {
    for (const action of ACTIONS) {
      authorize(LOCAL_OWNER, theirs, action);
      authorize({ ...ann, isAdmin: true }, theirs, action);
    }
  });

  it('is given to creators for what is theirs, and to everybody for asking what is built in', () => {
    authorize(ann, { ...theirs, creator: 'ann' }, 'manage');
    authorize(ann, embedded, 'query');
    expect(levelOf(ann, embedded)).toBe('CAN_QUERY');
    expect(refusal(() => authorize(ann, embedded, 'manage'))).toContain('takes CAN_MANAGE');
  });

  it('follows the access list, the highest entry of those that name the principal', () => {
    const list = listOf({ users: { ann: 'CAN_VIEW' }, groups: { team: 'CAN_QUERY', other: 'CAN_MANAGE' } });
    expect(levelOf(ann, theirs, list)).toBe('CAN_QUERY');
    expect(levelOf({ ...ann, groups: [] }, theirs, list)).toBe('CAN_VIEW');
    expect(levelOf(ann, theirs, listOf({ groups: { [EVERYBODY]: 'CAN_QUERY' } }))).toBe('CAN_QUERY');
  });

  it('does not take a user for a service principal or a group of the same name, nor the other way round', () => {
    const all = { users: 'CAN_MANAGE', groups: 'CAN_MANAGE', servicePrincipals: 'CAN_MANAGE' } as const;
    for (const [kind, level] of Object.entries(all)) {
      const list = listOf({ [kind]: { ann: level } });
      expect(levelOf(ann, theirs, list)).toBe(kind === 'users' ? level : undefined);
      const bot = { ...ann, kind: 'service_principal' } as const;
      expect(levelOf(bot, theirs, list)).toBe(kind === 'servicePrincipals' ? level : undefined);
    }
  });

  it('tells who may see nothing of an endpoint no more than its name, and who may see it what is missing', () => {
    const secret = { ...theirs, description: 'hidden', creator: 'someone-else' };
    expect(refusal(() => authorize(ann, secret, 'query'))).toBe(
      "'ann' may not query endpoint 'e'. Ask its owner or an administrator.",
    );
    expect(refusal(() => authorize(ann, secret, 'query', listOf({ users: { ann: 'CAN_VIEW' } })))).toBe(
      "'ann' may not query endpoint 'e': that takes CAN_QUERY, and this is CAN_VIEW. Ask its owner 'someone-else' or an administrator.",
    );
  });

  it('is cut down by the scopes and endpoints of a token, also for administrators', () => {
    const mine = { ...theirs, creator: 'ann' };
    authorize({ ...ann, scopes: ['query'] }, mine, 'query');
    expect(refusal(() => authorize({ ...ann, scopes: ['query'] }, mine, 'manage'))).toContain('scope manage');
    expect(refusal(() => authorize({ ...LOCAL_OWNER, scopes: ['sql'] }, mine, 'query'))).toContain(
      'scope query',
    );
    authorize({ ...ann, endpoints: ['e'] }, mine, 'manage');
    for (const action of ACTIONS) {
      expect(refusal(() => authorize({ ...LOCAL_OWNER, endpoints: ['f'] }, mine, action))).toContain(
        'for other endpoints',
      );
    }
    expect(refusal(() => authorizeCreate({ ...ann, endpoints: ['f'] }, 'e'))).toContain('other endpoints');
    expect(refusal(() => authorizeCreate({ ...ann, scopes: ['query'] }, 'e'))).toContain('scope manage');
  });

  it('to SQL over HTTP is for administrators whose token is for it', () => {
    requireSql(LOCAL_OWNER);
    requireSql({ ...LOCAL_OWNER, scopes: ['sql'] });
    for (const principal of [
      { ...ann, scopes: ['sql'] } as const,
      { ...LOCAL_OWNER, scopes: ['query', 'manage'] } as const,
      { ...LOCAL_OWNER, endpoints: ['e'] },
    ]) {
      expect(refusal(() => requireSql(principal))).not.toBe('');
    }
  });

  it('is never given to a principal that no entry names', () => {
    const name = fc.constantFrom(
      'ann',
      'bob',
      'team',
      'eve',
      EVERYBODY,
      'admins',
      '',
      'constructor',
      '__proto__',
    );
    const level = fc.constantFrom(...PERMISSION_LEVELS);
    const entries = fc.array(fc.tuple(name, level), { maxLength: 6 }).map((list) => new Map(list));
    const principal = fc.record({
      id: fc.constant('u'),
      name,
      kind: fc.constantFrom('user' as const, 'service_principal' as const),
      isAdmin: fc.constant(false),
      groups: fc.array(name, { maxLength: 3 }),
    });
    const list = fc.record({ users: entries, groups: entries, servicePrincipals: entries });
    fc.assert(
      fc.property(principal, list, fc.constantFrom(...ACTIONS), (who, given, action) => {
        const named = who.kind === 'user' ? given.users : given.servicePrincipals;
        const levels = [
          named.get(who.name),
          given.groups.get(EVERYBODY),
          ...who.groups.map((group) => given.groups.get(group)),
        ];
        const needed = ACTIONS.indexOf(action);
        const mayBe = levels.some((got) => got !== undefined && PERMISSION_LEVELS.indexOf(got) >= needed);
        const isLetThrough =
          refusal(() => authorize(who, { ...theirs, creator: 'nobody' }, action, given)) === '';
        expect(isLetThrough).toBe(mayBe);
      }),
    );
  });
});
