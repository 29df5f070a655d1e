// Signatures for Amazon held to published vectors, and the stub's own check held to the same ones: the two were
// written apart, so that one cannot hide the other's mistake.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Clock } from '#core/clock.ts';
import { openSigner, type SignerOptions } from '#engines/bedrock/signature.ts';
import { findFault, signatureOf } from '../stub/sigv4.ts';

const KEYS = {
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
};
const at = (iso: string): Clock => ({
  now: () => Date.parse(iso),
  random: () => 0,
  sleep: () => Promise.resolve(),
});
const TEST_SUITE: SignerOptions = {
  region: 'us-east-1',
  service: 'service',
  hasChecksum: false,
  clock: at('2015-08-30T12:36:00Z'),
};

/** From Amazon's test suite for Signature Version 4. */
const VECTORS = [
  {
    name: 'get-vanilla',
    method: 'GET',
    headers: {},
    body: '',
    signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
  },
  {
    name: 'post-vanilla',
    method: 'POST',
    headers: {},
    body: '',
    signature: '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
  },
  {
    name: 'post-x-www-form-urlencoded',
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: 'Param1=value1',
    signature: 'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
  },
] as const;

describe('signatures for Amazon', () => {
  test.each(VECTORS)('the engine signs $name as published', async ({ method, headers, body, signature }) => {
    const sign = await openSigner(TEST_SUITE);
    const signed = await sign({ method, host: 'example.amazonaws.com', path: '/', headers, body }, KEYS);
    expect(signed['x-amz-date']).toBe('20150830T123600Z');
    expect(signed.authorization).toContain(`Signature=${signature}`);
  });

  test.each(VECTORS)('the stub computes $name as published', ({ method, headers, body, signature }) => {
    const request = {
      method,
      url: '/',
      headers: { ...headers, host: 'example.amazonaws.com', 'x-amz-date': '20150830T123600Z' },
      text: body,
    };
    const names = [...Object.keys(headers), 'host', 'x-amz-date'];
    const keys = { ...KEYS, region: 'us-east-1', service: 'service' };
    expect(signatureOf(request, names, '20150830T123600Z', keys)).toBe(signature);
  });

  test("the request of Amazon's own walk-through has its signature", () => {
    const request = {
      method: 'GET',
      url: '/?Action=ListUsers&Version=2010-05-08',
      headers: {
        'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
        host: 'iam.amazonaws.com',
        'x-amz-date': '20150830T123600Z',
      },
      text: '',
    };
    const keys = { ...KEYS, region: 'us-east-1', service: 'iam' };
    expect(signatureOf(request, Object.keys(request.headers), '20150830T123600Z', keys)).toBe(
      '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    );
  });

  test('whatever the model is called and the body says, both agree; one changed byte and they do not', async () => {
    const sign = await openSigner({ ...TEST_SUITE, service: 'bedrock', hasChecksum: true });
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(
        name,
        fc.string({ unit: 'grapheme' }),
        fc.boolean(),
        async (model, body, isTemporary) => {
          const session = isTemporary ? { sessionToken: 'session/token+0123456789==' } : {};
          const path = `/model/${encodeURIComponent(model)}/converse`;
          const host = 'bedrock-runtime.us-east-1.amazonaws.com';
          const headers = await sign(
            { method: 'POST', host, path, headers: { 'content-type': 'application/json' }, body },
            { ...KEYS, ...session },
          );
          const request = { method: 'POST', url: path, headers, text: body };
          const keys = { ...KEYS, ...session, region: 'us-east-1', service: 'bedrock' };
          expect(findFault(request, keys)).toBeUndefined();
          expect(findFault({ ...request, url: `${path}x` }, keys)).toContain('does not match');
          expect(findFault({ ...request, text: `${body} ` }, keys)).toContain('hash of the body');
          expect(findFault(request, { ...keys, secretAccessKey: 'another' })).toContain('does not match');
          expect(findFault(request, { ...keys, region: 'eu-west-1' })).toContain('scoped');
        },
      ),
      { numRuns: 60 },
    );
  });
});
