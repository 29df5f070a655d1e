// The options of a registered version that is run by Python: what they are called and what they may be.
// Not here: what the files of the model say (python-flavour.ts), nor what becomes of the options.
import type { ModelVersion } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';

/** What a model answers as. Absent: rows of features in, predictions out. */
export type AgentKind = 'responses' | 'chat_agent' | 'chat_model';
const AGENT_KINDS: readonly AgentKind[] = ['responses', 'chat_agent', 'chat_model'];

export interface PythonOptions {
  /** `loader_module` of the flavour `python_function`; absent: as MLmodel has it. */
  readonly loaderModule?: string;
  /** Interpreter to run it with, used as it is: nothing is installed and nothing is checked. */
  readonly python?: string;
  readonly agent?: AgentKind;
  /** Rows in one batch; 1 to 1,000,000. */
  readonly maxInputs: number;
  /** Requests that one process works on at once, in threads: for models that say they are safe for that. */
  readonly maxConcurrency: number;
  /** A request that takes longer ends the process: Python cannot be interrupted. */
  readonly timeoutSeconds: number;
  /** Starting the process and loading the model; building an environment does not count. */
  readonly startSeconds: number;
  /** Resident memory of the process, after which it is ended. Absent: no limit. */
  readonly memoryMb?: number;
  /** Threads of numeric libraries (OMP_NUM_THREADS and its relatives). Absent: as the libraries choose. */
  readonly threads?: number;
}

/** Throws INVALID_PARAMETER that names the option, shows the value and says what it must be. */
export function pythonOptionsOf({ options }: Pick<ModelVersion, 'options'>): PythonOptions {
  const loaderModule = readText(options, 'loaderModule');
  const python = readText(options, 'python');
  const agent = readAgent(options.agent);
  const memoryMb = readNumber(options, 'memoryMb', 16, 100_000_000, true);
  const threads = readNumber(options, 'threads', 1, 1_024, true);
  return {
    ...(loaderModule === undefined ? {} : { loaderModule }),
    ...(python === undefined ? {} : { python }),
    ...(agent === undefined ? {} : { agent }),
    maxInputs: readNumber(options, 'maxInputs', 1, 1_000_000, true) ?? 8_192,
    maxConcurrency: readNumber(options, 'maxConcurrency', 1, 256, true) ?? (agent === undefined ? 1 : 8),
    timeoutSeconds: readNumber(options, 'timeoutSeconds', 0.01, 86_400, false) ?? 300,
    startSeconds: readNumber(options, 'startSeconds', 0.01, 86_400, false) ?? 300,
    ...(memoryMb === undefined ? {} : { memoryMb }),
    ...(threads === undefined ? {} : { threads }),
  };
}

function readText(options: JsonObject, name: string): string | undefined {
  const value = options[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value;
  throw invalid(name, value, 'a text');
}

function readAgent(value: Json | undefined): AgentKind | undefined {
  if (value === undefined || value === null || value === false) return undefined;
  const kind = AGENT_KINDS.find((known) => known === value);
  if (kind !== undefined) return kind;
  throw invalid('agent', value, `one of ${AGENT_KINDS.join(', ')}`);
}

/** Numbers come as text from a command line. */
function readNumber(
  options: JsonObject,
  name: string,
  least: number,
  most: number,
  isWhole: boolean,
): number | undefined {
  const value = options[name];
  if (value === undefined || value === null) return undefined;
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  const fits = typeof number === 'number' && number >= least && number <= most;
  if (fits && (!isWhole || Number.isInteger(number))) return number;
  throw invalid(name, value, `a ${isWhole ? 'whole ' : ''}number from ${least} to ${most}`);
}

function invalid(name: string, value: Json, wanted: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The option ${name} of the model is ${JSON.stringify(value)?.slice(0, 120)}; it must be ${wanted}.`,
  );
}
