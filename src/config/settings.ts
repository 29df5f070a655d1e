// Settings of the process, from flags before environment before defaults. Resolved once at the start and handed
// down; nothing else reads the environment for them. Defaults of the data directory itself are in the registry.
import { join, resolve } from 'node:path';
import { ServingError } from '#core/errors.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'silent'];

export interface SettingFlags {
  /** A directory, or `:memory:` for one that is forgotten. */
  readonly data?: string | undefined;
  readonly models?: string | undefined;
  readonly logLevel?: string | undefined;
  readonly isDurable?: boolean | undefined;
}

export interface Settings {
  /** Absolute; null keeps everything in memory. */
  readonly dataDir: string | null;
  /** Absolute: weights that are fetched. */
  readonly modelCacheDir: string;
  /** Absolute: copies of registered models. */
  readonly artifactsDir: string;
  /** Absolute: environments of Python that are built for models. */
  readonly environmentsDir: string;
  /** The interpreter for models in Python; absent: one is looked for. */
  readonly python?: string;
  /** Threads of one run of an ONNX model; absent: one a core, at most four. */
  readonly onnxThreads?: number;
  /** Of the files in an archive that is registered, once it is unpacked. */
  readonly modelMaxBytes: number;
  readonly answers: {
    readonly maxEntries: number;
    readonly maxBytes?: number;
    readonly ttlMs: number;
    readonly memoryEntries: number;
  };
  readonly usage: {
    /** A call is answered only after its usage row is on disk. */
    readonly isDurable: boolean;
    /** Rows of usage and of inference tables older than this are deleted. */
    readonly retentionMs: number;
  };
  readonly logLevel: LogLevel;
}

const DAY_MS = 24 * 60 * 60 * 1_000;
const DEFAULT_DATA_DIR = '.duckserve';

/** Throws INVALID_PARAMETER that names the flag or variable, shows the value and says what it must be. */
export function resolveSettings(given: {
  readonly flags?: SettingFlags;
  readonly env: Readonly<Record<string, string | undefined>>;
}): Settings {
  const { flags = {}, env } = given;
  const data = flags.data ?? nonEmpty(env.DUCKSERVE_DATA) ?? DEFAULT_DATA_DIR;
  if (data === '') throw invalid('--data', data, 'a directory, or :memory:');
  const dataDir = data === ':memory:' ? null : resolve(data);
  // Weights are large and the same for all: without a data directory they lie where the next one would have them.
  const filesDir = dataDir ?? resolve(DEFAULT_DATA_DIR);
  const maxBytes = readNumber(env, 'DUCKSERVE_ANSWERS_MAX_BYTES', 1_000_000, Number.MAX_SAFE_INTEGER);
  const ttlDays = readNumber(env, 'DUCKSERVE_ANSWERS_TTL_DAYS', 0, 36_500, false) ?? 30;
  const retentionDays = readNumber(env, 'DUCKSERVE_USAGE_RETENTION_DAYS', 0, 36_500, false) ?? 30;
  const python = nonEmpty(env.DUCKSERVE_PYTHON);
  const onnxThreads = readNumber(env, 'DUCKSERVE_ONNX_THREADS', 1, 1_024);
  return {
    dataDir,
    modelCacheDir: resolve(flags.models ?? nonEmpty(env.DUCKSERVE_MODELS) ?? join(filesDir, 'models')),
    artifactsDir: join(filesDir, 'artifacts'),
    environmentsDir: resolve(nonEmpty(env.DUCKSERVE_ENVIRONMENTS) ?? join(filesDir, 'environments')),
    ...(python === undefined ? {} : { python }),
    ...(onnxThreads === undefined ? {} : { onnxThreads }),
    modelMaxBytes: readNumber(env, 'DUCKSERVE_MODEL_MAX_BYTES', 1, Number.MAX_SAFE_INTEGER) ?? 64 * 1024 ** 3,
    answers: {
      maxEntries: readNumber(env, 'DUCKSERVE_ANSWERS_MAX', 1, 1_000_000_000) ?? 5_000_000,
      ...(maxBytes === undefined ? {} : { maxBytes }),
      // 0 days: never too old.
      ttlMs: ttlDays === 0 ? Number.POSITIVE_INFINITY : ttlDays * DAY_MS,
      memoryEntries: readNumber(env, 'DUCKSERVE_ANSWERS_IN_MEMORY', 1, 100_000_000) ?? 50_000,
    },
    usage: {
      isDurable: readIsDurable(flags, env),
      // 0 days: all are kept.
      retentionMs: retentionDays === 0 ? Number.POSITIVE_INFINITY : retentionDays * DAY_MS,
    },
    logLevel: readLogLevel(flags, env),
  };
}

function readLogLevel(flags: SettingFlags, env: Readonly<Record<string, string | undefined>>): LogLevel {
  const value = flags.logLevel ?? nonEmpty(env.DUCKSERVE_LOG) ?? 'warn';
  const level = LOG_LEVELS.find((known) => known === value.toLowerCase());
  if (level !== undefined) return level;
  throw invalid(
    flags.logLevel === undefined ? 'DUCKSERVE_LOG' : '--log-level',
    value,
    `one of ${LOG_LEVELS.join(', ')}`,
  );
}

function readIsDurable(flags: SettingFlags, env: Readonly<Record<string, string | undefined>>): boolean {
  if (flags.isDurable !== undefined) return flags.isDurable;
  const value = nonEmpty(env.DUCKSERVE_USAGE) ?? 'batched';
  if (value === 'batched' || value === 'durable') return value === 'durable';
  throw invalid('DUCKSERVE_USAGE', value, 'batched or durable');
}

function readNumber(
  env: Readonly<Record<string, string | undefined>>,
  name: string,
  least: number,
  most: number,
  isWhole = true,
): number | undefined {
  const text = nonEmpty(env[name]);
  if (text === undefined) return undefined;
  // Underscores as people write large numbers: 5_000_000.
  const value = /^\d[\d_]*(\.\d+)?$/.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
  if (value >= least && value <= most && (!isWhole || Number.isInteger(value))) return value;
  throw invalid(name, text, `a ${isWhole ? 'whole ' : ''}number from ${least} to ${most}`);
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text.trim() === '' ? undefined : text.trim();
}

function invalid(name: string, value: string, wanted: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `${name} is ${JSON.stringify(value)}; it must be ${wanted}.`);
}
