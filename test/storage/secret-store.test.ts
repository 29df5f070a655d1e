import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { openSecretStore, type SecretStore } from '#storage/secret-store.ts';

const PLAINTEXT = 'sk-plaintext-that-nobody-may-find-0123456789';
let directory: string;
let database: Database;
let secrets: SecretStore;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-secrets-'));
  await reopen();
});
afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true, force: true });
});

async function reopen(env: Record<string, string> = {}): Promise<void> {
  await database?.close();
  database = await openDatabase({
    systemPath: join(directory, 'system.duckdb'),
    userPath: ':memory:',
    log: SILENT_LOG,
  });
  secrets = await openSecretStore({
    store: new DuckDbRegistryStore(database.system),
    dataDir: directory,
    env,
    clock: SYSTEM_CLOCK,
  });
}

function filesWith(text: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => readFileSync(file).includes(text));
}

function refusal(attempt: () => unknown): ServingError {
  try {
    attempt();
  } catch (error) {
    if (error instanceof ServingError) return error;
  }
  throw new Error('expected a refusal');
}

describe('the secret store', () => {
  it('gives a secret back where it is referred to, also after opening again', async () => {
    await secrets.setSecret('openai', 'key', PLAINTEXT);
    expect(secrets.resolve('{{secrets/openai/key}}')).toBe(PLAINTEXT);
    await reopen();
    expect(secrets.resolve('Bearer {{ secrets/openai/key }}!')).toBe(`Bearer ${PLAINTEXT}!`);
  });

  it('leaves no trace of the value in any file of the data directory, open or closed', async () => {
    await secrets.setSecret('openai', 'key', PLAINTEXT);
    expect(filesWith(PLAINTEXT)).toEqual([]);
    expect(filesWith(Buffer.from(PLAINTEXT).toString('base64').slice(0, 40))).toEqual([]);
    await database.close();
    expect(filesWith(PLAINTEXT)).toEqual([]);
    expect(statSync(join(directory, 'master.key')).mode & 0o777).toBe(0o600);
    await reopen();
  });

  it('makes its key only when the first secret is set', async () => {
    expect(readdirSync(directory)).not.toContain('master.key');
    await secrets.setSecret('a', 'b', 'c');
    expect(readdirSync(directory).filter((file) => file.startsWith('master'))).toEqual(['master.key']);
  });

  it('seals the same value differently each time', async () => {
    await secrets.setSecret('a', '1', PLAINTEXT);
    await secrets.setSecret('a', '2', PLAINTEXT);
    const rows = await new DuckDbRegistryStore(database.system).loadAll();
    const sealed = rows.map((row) => row.document as { nonce: string; ciphertext: string });
    expect(new Set(sealed.map((each) => each.nonce)).size).toBe(2);
    expect(new Set(sealed.map((each) => each.ciphertext)).size).toBe(2);
  });

  it('does not open a secret that was moved to another name or changed', async () => {
    await secrets.setSecret('a', 'mine', PLAINTEXT);
    await secrets.setSecret('a', 'yours', 'other');
    await database.system.run(`UPDATE duckserve.main.registry SET document =
      (SELECT document FROM duckserve.main.registry WHERE key = 'a/mine') WHERE key = 'a/yours'`);
    await reopen();
    const error = refusal(() => secrets.resolve('{{secrets/a/yours}}'));
    expect(error.code).toBe('SECRET_NOT_FOUND');
    expect(error.message).toContain('{{secrets/a/yours}} is damaged');
  });

  it('lists names and never values', async () => {
    await secrets.setSecret('b', 'x', PLAINTEXT);
    await secrets.setSecret('a', 'y', PLAINTEXT);
    expect(secrets.listSecrets().map(({ scope, key }) => `${scope}/${key}`)).toEqual(['a/y', 'b/x']);
    expect(JSON.stringify(secrets.listSecrets())).not.toContain(PLAINTEXT);
    await secrets.deleteSecret('a', 'y');
    await reopen();
    expect(secrets.listSecrets().map(({ scope, key }) => `${scope}/${key}`)).toEqual(['b/x']);
  });

  it('resolves the environment, and leaves other text and braces alone', async () => {
    await reopen({ KEY: 'value$&' });
    expect(secrets.resolve('a {{env/KEY}} {{other}} b')).toBe('a value$& {{other}} b');
    expect(secrets.resolve('plain')).toBe('plain');
  });

  it('names a reference that points to nothing, and what to do', async () => {
    for (const reference of ['{{secrets/a/none}}', '{{env/NOT_SET}}']) {
      const error = refusal(() => secrets.resolve(reference));
      expect(error.code).toBe('SECRET_NOT_FOUND');
      expect(error.message).toContain(reference);
    }
    await expect(secrets.deleteSecret('a', 'none')).rejects.toThrow('{{secrets/a/none}}');
  });

  it('says so when the master key is not the one that encrypted', async () => {
    await secrets.setSecret('a', 'b', PLAINTEXT);
    writeFileSync(join(directory, 'master.key'), Buffer.alloc(32, 7).toString('base64'));
    await reopen();
    const error = refusal(() => secrets.resolve('{{secrets/a/b}}'));
    expect(error.message).toContain('Restore master.key');
    expect(error.message).not.toContain(PLAINTEXT);
  });

  it('takes its key from the environment where one is given, and writes none then', async () => {
    await reopen({ DUCKSERVE_MASTER_KEY: Buffer.alloc(32, 1).toString('base64') });
    await secrets.setSecret('a', 'b', PLAINTEXT);
    expect(secrets.resolve('{{secrets/a/b}}')).toBe(PLAINTEXT);
    expect(readdirSync(directory)).not.toContain('master.key');
    await reopen({ DUCKSERVE_MASTER_KEY: 'c2hvcnQ-not-a-key' });
    const error = refusal(() => secrets.resolve('{{secrets/a/b}}'));
    expect(error.message).toContain('32 bytes in base64');
    expect(error.message).not.toContain('c2hvcnQ');
  });

  it('refuses names that could not be referred to', async () => {
    await expect(secrets.setSecret('a/b', 'c', 'v')).rejects.toThrow('"a/b"');
    await expect(secrets.setSecret('a', '', 'v')).rejects.toThrow('The key of a secret');
    await expect(secrets.setSecret('a', 'b', '')).rejects.toThrow('empty');
  });
});
