// Agents as files for the tests, and the engine around them: what they ask is answered by a function of the test.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ChatInput, LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { type Log, SILENT_LOG } from '#core/log.ts';
import type { Batch, EngineContext, Runner } from '#engines/engine.ts';
import { moduleEngine } from '#engines/module/module.ts';

/** Undone after each test. */
const undo: (() => unknown)[] = [];

export async function clearAgents(): Promise<void> {
  for (let next = undo.pop(); next !== undefined; next = undo.pop()) await next();
}

export function agentFolder(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'duckserve-agent-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, source] of Object.entries(files)) writeFileSync(join(folder, name), source);
  return folder;
}

export function agentFile(source: string, name = 'agent.mjs'): string {
  return join(agentFolder({ [name]: source }), name);
}

export function targetOf(source: string, options: JsonObject = {}, extra: Partial<Target> = {}): Target {
  return {
    ...{ endpoint: 'helper', servedEntity: 'helper', engine: 'module', task: 'llm/v1/chat' },
    ...{ fingerprint: 'f', model: 'helper@1', isPersonal: true },
    modelVersion: {
      ...{ model: 'helper', version: '1', engine: 'module', task: 'llm/v1/chat', source },
      ...{ sha256: 's', sizeBytes: 1, options: { agent: 'module', ...options }, createdAtMs: 0 },
    },
    ...extra,
  };
}

export interface OpenOptions {
  readonly options?: JsonObject;
  readonly target?: Partial<Target>;
  readonly context?: Partial<EngineContext>;
  /** Closed by the test, and not after it. */
  readonly isKept?: boolean;
}

export async function openAgent(source: string, open: OpenOptions = {}): Promise<Runner> {
  const path = /\.(m?[jt]s|cjs)$/.test(source) ? source : agentFile(source);
  const context: EngineContext = {
    log: SILENT_LOG,
    modelCacheDir: tmpdir(),
    resolveSecret: (reference) => reference,
    allowDownload: () => false,
    notify: () => {},
    ...open.context,
  };
  const runner = await moduleEngine.open(targetOf(path, open.options, open.target), context);
  if (!open.isKept) undo.push(() => runner.close());
  return runner;
}

export const ANN: Principal = {
  ...{ id: 'ann-id', name: 'ann', kind: 'user', isAdmin: false, groups: ['staff'] },
};

export function batchOf(text: string, extra: Partial<Batch> = {}): Batch {
  const input: ChatInput = { messages: [{ role: 'user', content: text }] };
  return {
    task: 'llm/v1/chat',
    inputs: [input],
    parameters: {},
    signal: new AbortController().signal,
    caller: { principal: LOCAL_OWNER, origin: 'http', depth: 0 },
    ...extra,
  };
}

/** What was said, by level. */
export class HeardLog implements Log {
  readonly lines: { level: string; fields: object; message: string }[] = [];
  readonly debug = this.#note('debug');
  readonly info = this.#note('info');
  readonly warn = this.#note('warn');
  readonly error = this.#note('error');
  #note(level: string) {
    return (fields: object, message: string) => void this.lines.push({ level, fields, message });
  }
}
