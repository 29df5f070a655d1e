import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { resolveSettings } from '#config/settings.ts';

describe('settings of the process', () => {
  it('have defaults', () => {
    expect(resolveSettings({ env: {} })).toEqual({
      dataDir: resolve('.duckserve'),
      modelCacheDir: resolve('.duckserve/models'),
      artifactsDir: resolve('.duckserve/artifacts'),
      environmentsDir: resolve('.duckserve/environments'),
      modelMaxBytes: 64 * 1024 ** 3,
      answers: { maxEntries: 5_000_000, ttlMs: 30 * 86_400_000, memoryEntries: 50_000 },
      usage: { isDurable: false, retentionMs: 30 * 86_400_000 },
      logLevel: 'warn',
    });
  });

  it('say how usage is written and kept, and refuse what is neither', () => {
    const env = { DUCKSERVE_USAGE: 'durable', DUCKSERVE_USAGE_RETENTION_DAYS: '0' };
    expect(resolveSettings({ env }).usage).toEqual({
      isDurable: true,
      retentionMs: Number.POSITIVE_INFINITY,
    });
    expect(() => resolveSettings({ env: { DUCKSERVE_USAGE: 'sometimes' } })).toThrow(
      'DUCKSERVE_USAGE is "sometimes"; it must be batched or durable.',
    );
  });

  it('come from flags before the environment', () => {
    const env = {
      DUCKSERVE_DATA: '/env/data',
      DUCKSERVE_MODELS: '/env/models',
      DUCKSERVE_ANSWERS_MAX: '1_000',
      DUCKSERVE_ANSWERS_TTL_DAYS: '0.5',
      DUCKSERVE_LOG: 'DEBUG',
    };
    expect(resolveSettings({ env })).toMatchObject({
      dataDir: resolve('/env/data'),
      modelCacheDir: resolve('/env/models'),
      answers: { maxEntries: 1_000, ttlMs: 43_200_000 },
      logLevel: 'debug',
    });
    expect(resolveSettings({ env, flags: { data: '/flag', logLevel: 'error' } })).toMatchObject({
      dataDir: resolve('/flag'),
      modelCacheDir: resolve('/env/models'),
      logLevel: 'error',
    });
  });

  it('put weights below the data directory, and keep nothing else on disk with :memory:', () => {
    expect(resolveSettings({ env: {}, flags: { data: '/d' } }).modelCacheDir).toBe(
      join(resolve('/d'), 'models'),
    );
    expect(resolveSettings({ env: {}, flags: { data: ':memory:' } }).dataDir).toBeNull();
  });

  it('treat empty variables as not set and a life of 0 days as without end', () => {
    expect(resolveSettings({ env: { DUCKSERVE_DATA: '', DUCKSERVE_ANSWERS_TTL_DAYS: '0' } })).toMatchObject({
      dataDir: resolve('.duckserve'),
      answers: { ttlMs: Number.POSITIVE_INFINITY },
    });
  });

  it.each([
    [{ DUCKSERVE_ANSWERS_MAX: '0' }, 'DUCKSERVE_ANSWERS_MAX is "0"; it must be a whole number from 1'],
    [{ DUCKSERVE_ANSWERS_MAX: 'many' }, '"many"'],
    [{ DUCKSERVE_ANSWERS_MAX: '1.5' }, '"1.5"'],
    [{ DUCKSERVE_ANSWERS_TTL_DAYS: '-3' }, 'DUCKSERVE_ANSWERS_TTL_DAYS is "-3"'],
    [{ DUCKSERVE_LOG: 'loud' }, 'DUCKSERVE_LOG is "loud"; it must be one of debug'],
  ])('refuse bad values by name: %o', (env, message) => {
    expect(() => resolveSettings({ env })).toThrow(message);
  });
});
