// A registry over a real store in a directory of its own, for each test that imports this.
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { ModelInspection } from '#core/endpoint.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';

export let directory: string;
export let database: Database;
export let registry: Registry;

export const inspectModel = async (path: string): Promise<ModelInspection> => {
  if (path.endsWith('.gguf')) return { engine: 'llama', task: 'llm/v1/chat', options: {} };
  if (path.endsWith('.onnx')) {
    const column = { name: 'x', type: 'double', required: true } as const;
    return {
      engine: 'onnx',
      task: 'predict',
      options: { labels: ['a', 'b'] },
      signature: { inputs: [column], outputs: [column] },
    };
  }
  return { engine: 'onnx', task: 'llm/v1/embeddings', dimensions: 4, options: {} };
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-registry-'));
  await reopen();
});
afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Renames the data directory while nothing has it open, and opens it at its new place. */
export async function moveDirectory(): Promise<void> {
  await database.close();
  const moved = `${directory}-moved`;
  renameSync(directory, moved);
  directory = moved;
  await reopen();
}

export async function reopen(): Promise<void> {
  await database?.close();
  database = await openDatabase({
    systemPath: join(directory, 'system.duckdb'),
    userPath: ':memory:',
    log: SILENT_LOG,
  });
  registry = await openRegistry({
    store: new DuckDbRegistryStore(database.system),
    artifactsDir: join(directory, 'artifacts'),
    clock: SYSTEM_CLOCK,
    inspectModel,
    log: SILENT_LOG,
  });
}

export const create = (spec: unknown) => registry.createEndpoint(spec, LOCAL_OWNER);
export const gpt = (options: object = {}) => ({
  name: 'gpt-4.1:mini',
  provider: 'openai',
  task: 'llm/v1/chat',
  ...options,
});

export async function refusal(attempt: (() => unknown) | Promise<unknown>): Promise<ServingError> {
  try {
    await (typeof attempt === 'function' ? attempt() : attempt);
  } catch (error) {
    if (error instanceof ServingError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

export async function expectRefusal(
  attempt: (() => unknown) | Promise<unknown>,
  code: ErrorCode,
  ...parts: string[]
) {
  const error = await refusal(attempt);
  expect(error.code).toBe(code);
  for (const part of parts) expect(error.message).toContain(part);
}

export function writeModel(name: string, content: string, sidecars: Record<string, string> = {}): string {
  const folder = join(directory, 'models', sha256Hex(name + content).slice(0, 8));
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(sidecars)) writeFileSync(join(folder, file), text);
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}
