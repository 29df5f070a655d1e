// JWTs of an issuer on loopback: what is believed of them, and every way of forging one that we know.
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { endpointOf, type Issuer, NOW_MS, openTestIdentity, startIssuer } from './identity-support.ts';

let issuer: Issuer;
let env: Record<string, string>;
const folder = mkdtempSync(join(tmpdir(), 'duckserve-oidc-'));
beforeAll(async () => {
  issuer = await startIssuer();
  env = { DUCKSERVE_OIDC_ISSUER: issuer.url, DUCKSERVE_OIDC_AUDIENCE: 'other, duckserve' };
});
afterAll(async () => {
  await issuer.close();
  rmSync(folder, { recursive: true });
});

const refusal = async (promise: Promise<unknown>): Promise<{ code: string; message: string }> =>
  await promise.then(
    () => ({ code: 'none', message: 'it was let in' }),
    (error: { code: string; message: string }) => error,
  );
const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

describe('a JWT of the issuer', () => {
  it('is a principal with its groups; the second time nobody is asked', async () => {
    const { identity } = await openTestIdentity(env);
    expect(identity.isOpen).toBe(false);
    const jwt = await issuer.sign({ sub: '7', email: 'ann@example.org', groups: ['team', 5, ''] });
    const ann = await identity.authenticate(jwt);
    expect(ann).toEqual({
      id: `${issuer.url}#7`,
      name: 'ann@example.org',
      kind: 'user',
      isAdmin: false,
      groups: ['team'],
    });
    expect(identity.authenticate(jwt)).toBe(ann);
    await identity.setPermissions(endpointOf('e'), [{ kind: 'group', name: 'team', level: 'CAN_QUERY' }]);
    identity.authorize(await identity.authenticate(jwt), endpointOf('e'), 'query');
  });

  it.each([
    [{ email: 'a@x', preferred_username: 'b', sub: 'c' }, 'a@x'],
    [{ email: 'a@x', email_verified: false, preferred_username: 'b', sub: 'c' }, 'b'],
    [{ email: '', sub: 'c' }, 'c'],
  ])('%j names the caller %s', async (claims, name) => {
    const { identity } = await openTestIdentity(env);
    expect(await identity.authenticate(await issuer.sign(claims))).toMatchObject({ name });
  });

  it('names the caller by the claim that is set and by no other', async () => {
    const { identity } = await openTestIdentity({ ...env, DUCKSERVE_OIDC_NAME_CLAIM: 'upn' });
    expect(await identity.authenticate(await issuer.sign({ upn: 'ann', sub: '1' }))).toMatchObject({
      name: 'ann',
    });
    const refused = await refusal(
      identity.authenticate(await issuer.sign({ email: 'ann' })) as Promise<unknown>,
    );
    expect(refused).toMatchObject({ code: 'UNAUTHENTICATED', message: expect.stringContaining('upn') });
  });

  it('makes administrators of the members of one group, where that is set', async () => {
    const jwt = await issuer.sign({ sub: 'a', groups: ['admins', 'ops'] });
    const plain = (await openTestIdentity(env)).identity;
    expect(await plain.authenticate(jwt)).toMatchObject({ isAdmin: false });
    const set = (await openTestIdentity({ ...env, DUCKSERVE_OIDC_ADMIN_GROUP: 'ops' })).identity;
    expect(await set.authenticate(jwt)).toMatchObject({ isAdmin: true });
  });

  it('of a program is a service principal', async () => {
    const { identity } = await openTestIdentity(env);
    for (const claims of [
      { sub: 'p1', client_id: 'p1' },
      { sub: 'p2', idtyp: 'app' },
      { sub: 'p3', azp: 'p3' },
    ]) {
      expect(await identity.authenticate(await issuer.sign(claims))).toMatchObject({
        kind: 'service_principal',
      });
    }
  });

  it('cannot come by the name of the owner, of duckserve, or of a principal of another kind', async () => {
    const { identity } = await openTestIdentity(env);
    await identity.createToken({ principal: 'bot', kind: 'service_principal' }, LOCAL_OWNER);
    for (const name of ['local', 'duckserve', 'bot', 'a\u200bnn']) {
      const refused = await refusal(
        identity.authenticate(await issuer.sign({ email: name })) as Promise<unknown>,
      );
      expect(refused, name).toMatchObject({ code: 'UNAUTHENTICATED' });
    }
  });

  it('gives no way to the rights of a principal of the same name that is kept', async () => {
    const { identity } = await openTestIdentity(env);
    await identity.createToken({ principal: 'ann', isAdmin: true }, LOCAL_OWNER);
    const ann = await identity.authenticate(await issuer.sign({ email: 'ann' }));
    expect(ann.isAdmin).toBe(false);
    expect(await refusal(identity.createToken({}, ann))).toMatchObject({ code: 'PERMISSION_DENIED' });
  });
});

describe('a JWT is refused', () => {
  const claims = { sub: 'ann', iss: '', aud: 'duckserve', exp: NOW_MS / 1_000 + 600 };
  const refuse = async (jwt: string, more: Record<string, string> = {}) => {
    const { identity } = await openTestIdentity({ ...env, ...more });
    const refused = await refusal(Promise.resolve().then(() => identity.authenticate(jwt)));
    expect(refused.message).not.toContain(jwt);
    return refused;
  };

  it('when it has expired or is not valid yet, within the tolerance of clocks', async () => {
    const at = (seconds: number) => NOW_MS / 1_000 + seconds;
    expect(await refuse(await issuer.sign({ sub: 'a' }, { expires: at(-31) }))).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: 'The JWT is refused: it expired on 2025-12-31T23:59:29.000Z.',
    });
    expect((await refuse(await issuer.sign({ sub: 'a', nbf: at(31) }))).message).toContain('not valid yet');
    expect((await refuse(await issuer.sign({ sub: 'a', nbf: at(29) }))).code).toBe('none');
  });

  it('from the moment it expires, also when it was remembered', async () => {
    const { identity, clock } = await openTestIdentity(env);
    const jwt = await issuer.sign({ sub: 'a' }, { expires: NOW_MS / 1_000 + 60 });
    await identity.authenticate(jwt);
    clock.nowMs += 91_000;
    expect((await refusal(identity.authenticate(jwt) as Promise<unknown>)).message).toContain('it expired');
  });

  it('when it is for others or of others', async () => {
    expect((await refuse(await issuer.sign({ sub: 'a' }, { audience: 'shop' }))).message).toContain(
      'its audience (aud) is not other or duckserve',
    );
    expect((await refuse(await issuer.sign({ sub: 'a', iss: 'https://evil.example' }))).message).toContain(
      `its issuer (iss) is not ${issuer.url}`,
    );
    const stranger = await generateKeyPair('ES256');
    const forged = await new SignJWT({ ...claims, iss: issuer.url })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
      .sign(stranger.privateKey);
    expect((await refuse(forged)).message).toContain('its signature is wrong');
    const unknown = await new SignJWT({ ...claims, iss: issuer.url })
      .setProtectedHeader({ alg: 'ES256', kid: 'k2' })
      .sign(stranger.privateKey);
    expect((await refuse(unknown)).message).toContain('no key like the one it names');
  });

  it('without a signature, or with one that the public key can make', async () => {
    const body = encode({ ...claims, iss: issuer.url });
    expect((await refuse(`${encode({ alg: 'none' })}.${body}.`)).message).toContain(
      'its algorithm is not one of',
    );
    const head = encode({ alg: 'HS256', kid: 'k1' });
    const mac = createHmac('sha256', JSON.stringify(issuer.keys))
      .update(`${head}.${body}`)
      .digest('base64url');
    expect((await refuse(`${head}.${body}.${mac}`)).message).toContain('its algorithm is not one of');
    const signed = await issuer.sign({ sub: 'a' });
    const [header, , signature] = signed.split('.');
    expect((await refuse(`${header}.${encode({ ...claims, sub: 'admin' })}.${signature}`)).message).toContain(
      'its signature is wrong',
    );
  });

  it('with a key of its own in the header, or one from its own address', async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
    const jwk = await exportJWK(publicKey);
    const forged = await new SignJWT({ ...claims, iss: issuer.url })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', jwk, jku: 'http://127.0.0.1:1/evil' })
      .sign(privateKey);
    expect((await refuse(forged)).message).toContain('its signature is wrong');
  });

  it('without an end', async () => {
    const jwt = await issuer.sign({ sub: 'a' }, { expires: null });
    expect((await refuse(jwt)).message).toContain('its claim exp is missing');
  });

  it('where no issuer is trusted', async () => {
    const { identity } = await openTestIdentity();
    await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const jwt = await issuer.sign({ sub: 'a' });
    expect(() => identity.authenticate(jwt)).toThrow('not known to this server');
  });
});

describe('the settings of an issuer', () => {
  it.each([
    [{ DUCKSERVE_OIDC_ISSUER: 'https://id.example' }, 'DUCKSERVE_OIDC_AUDIENCE'],
    [
      { DUCKSERVE_OIDC_ISSUER: 'http://id.example', DUCKSERVE_OIDC_AUDIENCE: 'd' },
      'must be an https address',
    ],
    [{ DUCKSERVE_OIDC_ISSUER: 'id', DUCKSERVE_OIDC_AUDIENCE: 'd' }, 'must be an https address'],
    [
      {
        DUCKSERVE_OIDC_ISSUER: 'https://id.example',
        DUCKSERVE_OIDC_AUDIENCE: 'd',
        DUCKSERVE_OIDC_JWKS: '/no/such/file',
      },
      'a file with a JSON Web Key Set',
    ],
  ])('%j are refused at the start', async (wrong, message) => {
    expect(await refusal(openTestIdentity(wrong))).toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringContaining(message),
    });
  });

  it('may name a file or an address of keys; then the issuer itself is not asked', async () => {
    const file = join(folder, 'keys.json');
    writeFileSync(file, JSON.stringify(issuer.keys));
    for (const keys of [file, `${issuer.url}/other-keys`]) {
      issuer.asked.length = 0;
      const { identity } = await openTestIdentity({ ...env, DUCKSERVE_OIDC_JWKS: keys });
      expect(await identity.authenticate(await issuer.sign({ sub: 'a' }))).toMatchObject({ name: 'a' });
      expect(issuer.asked).toEqual(keys === file ? [] : ['/other-keys']);
    }
  });

  it('of an issuer that cannot be reached let nobody in, and say so', async () => {
    const { identity } = await openTestIdentity({ ...env, DUCKSERVE_OIDC_ISSUER: 'http://127.0.0.1:1' });
    const jwt = await issuer.sign({ sub: 'a' });
    expect(await refusal(identity.authenticate(jwt) as Promise<unknown>)).toMatchObject({
      code: 'UPSTREAM_ERROR',
      message: expect.stringContaining('http://127.0.0.1:1/.well-known/openid-configuration'),
    });
  });
});
