import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { authorize } from '#governance/access.ts';
import { createEmbedded } from '#registry/embedded.ts';

const somebody: Principal = { id: 'u1', name: 'ann', kind: 'user', isAdmin: false };
const [embedded] = createEmbedded().endpoints;
if (embedded === undefined) throw new Error('there are built-in endpoints');
const theirs = { ...embedded, name: 'e', creator: 'bob', isEmbedded: false };

describe('access', () => {
  it('is complete for the local owner', () => {
    authorize(LOCAL_OWNER, theirs, 'query');
    authorize(LOCAL_OWNER, theirs, 'manage');
  });

  it('is given to creators for what is theirs, and to everybody for asking what is built in', () => {
    authorize(somebody, { ...theirs, creator: 'ann' }, 'manage');
    authorize(somebody, embedded, 'query');
  });

  it('is refused otherwise, naming who, what and whom to ask', () => {
    expect(() => authorize(somebody, theirs, 'query')).toThrow(
      "'ann' may not query endpoint 'e', which belongs to 'bob'",
    );
    expect(() => authorize(somebody, embedded, 'manage')).toThrow('may not manage');
  });
});
