// Who may do what on the control plane, and what they learn of what they may not.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { BASE, type Control, endpointOf, external, openControl, tokenOf } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
});
afterEach(() => control.close());

const create = (body: unknown) => control.ask('POST', BASE, body);

describe('who may', () => {
  it('see, change and create is asked for every route', async () => {
    await create(endpointOf('mine', external()));
    const ann = await tokenOf(control, 'ann@b.c', LOCAL_OWNER);
    const admin = {
      authorization: `Bearer ${(await control.identity.createToken({ principal: 'root', isAdmin: true }, LOCAL_OWNER)).token}`,
    };
    const paths: [string, string][] = [
      ['GET', ''],
      ['DELETE', ''],
      ['PUT', '/config'],
      ['PUT', '/ai-gateway'],
      ['PUT', '/rate-limits'],
      ['PATCH', '/tags'],
      ['PATCH', '/notifications'],
      ['PATCH', '/telemetry-config'],
      ['PATCH', '/system-metrics-export-state'],
      ['GET', '/served-models/a/logs'],
      ['GET', '/served-models/a/build-logs'],
      ['GET', '/metrics'],
      ['GET', '/openapi'],
      ['POST', '/config:stop'],
      ['POST', '/config:start'],
    ];
    for (const [method, path] of paths) {
      const { status, body } = await control.ask(
        method,
        `${BASE}/mine${path}`,
        method === 'GET' ? undefined : {},
        ann,
      );
      expect([path, status, body.error_code]).toEqual([path, 403, 'PERMISSION_DENIED']);
    }
    const seen = (await control.ask('GET', BASE, undefined, ann)).body.endpoints;
    expect(seen.map(({ name }: { name: string }) => name)).not.toContain('mine');
    expect((await control.ask('GET', `${BASE}/mine`, undefined, admin)).body.permission_level).toBe(
      'CAN_MANAGE',
    );
    // Viewing is not changing.
    await control.identity.setPermissions(control.registry.getEndpoint('mine'), [
      { kind: 'user', name: 'ann@b.c', level: 'CAN_VIEW' },
    ]);
    expect((await control.ask('GET', `${BASE}/mine`, undefined, ann)).body.permission_level).toBe('CAN_VIEW');
    expect((await control.ask('DELETE', `${BASE}/mine`, undefined, ann)).status).toBe(403);
  });

  it('create may everybody, and is the creator then; other names are not told', async () => {
    await create(endpointOf('secret-project', external()));
    const ann = await tokenOf(control, 'ann@b.c', LOCAL_OWNER);
    const created = await control.ask('POST', BASE, endpointOf('hers', external()), ann);
    expect(created.body).toMatchObject({ creator: 'ann@b.c', permission_level: 'CAN_MANAGE' });
    const missed = await control.ask('GET', `${BASE}/secret-projec`, undefined, ann);
    expect([missed.status, missed.body.message]).toEqual([404, "There is no endpoint 'secret-projec'."]);
  });

  it('send a secret of the server somewhere may only admins; a key of her own may everybody', async () => {
    await control.secrets.setSecret('shared', 'key', 'x');
    const ann = await tokenOf(control, 'ann@b.c', LOCAL_OWNER);
    const evil = { openai_api_key: '{{secrets/shared/key}}', openai_api_base: 'https://evil.example' };
    for (const reference of ['{{secrets/shared/key}}', '{{env/SET}}']) {
      const body = endpointOf('x', external({ openai_config: { ...evil, openai_api_key: reference } }));
      const refused = await control.ask('POST', BASE, body, ann);
      expect([refused.status, refused.body.message]).toEqual([403, expect.stringContaining(reference)]);
    }
    const own = { openai_api_key_plaintext: 'her-key', openai_api_base: 'https://fine.example' };
    expect(
      (await control.ask('POST', BASE, endpointOf('hers', external({ openai_config: own })), ann)).status,
    ).toBe(200);
    const read = (await control.ask('GET', `${BASE}/hers`, undefined, ann)).body.config;
    // What is there may stay, with other settings beside it ...
    read.served_entities[0].external_model.timeout_ms = 5_000;
    expect((await control.ask('PUT', `${BASE}/hers/config`, read, ann)).status).toBe(200);
    // ... but not go elsewhere.
    read.served_entities[0].external_model.openai_config.openai_api_base = 'https://evil.example';
    expect((await control.ask('PUT', `${BASE}/hers/config`, read, ann)).status).toBe(403);
  });

  it('an unknown token gets 401 before anything is looked at', async () => {
    await control.close();
    control = await openControl({ tokens: [sha256Hex('right')] });
    const refused = await control.ask('GET', BASE, undefined, { authorization: 'Bearer wrong' });
    expect(refused.status).toBe(401);
    expect((await control.ask('GET', BASE, undefined, { authorization: 'Bearer right' })).status).toBe(200);
  });
});
