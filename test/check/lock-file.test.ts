// The lock file must serve `npm ci` on every platform and through every mirror.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { missingEntries } from '../../scripts/complete-lock.ts';

const text = readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8');
const { packages } = JSON.parse(text) as { packages: Parameters<typeof missingEntries>[0] };

describe('the lock file', () => {
  it('has the binaries of all platforms, without which npm ci refuses it', () => {
    expect(Object.keys(packages).length).toBeGreaterThan(100);
    expect(Object.keys(missingEntries(packages))).toEqual([]);
  });

  it('notices a binary that is missing', () => {
    const parent = { 'node_modules/a': { optionalDependencies: { '@a/darwin-arm64': '1.0.0' } } };
    expect(missingEntries(parent)).toEqual({
      'node_modules/@a/darwin-arm64': { version: '1.0.0', optional: true, os: ['darwin'], cpu: ['arm64'] },
    });
  });

  it('names no download address', () => {
    expect(text).not.toMatch(/"resolved"/);
  });
});
