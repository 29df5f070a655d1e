// Turns a model that needs Python into one that does not, once, when it is registered: scikit-learn into ONNX, the
// pickles of LightGBM into its own text. Runs the model, so only for those whose code may be run. Registers nothing.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { toServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import { MLMODEL, type MlModel, readMlModel, toSignature } from '../mlflow/mlmodel.ts';
import { interpreterFor } from '../python/environments.ts';
import { modelEnvironment } from '../python/process-environment.ts';
import { readRequirements } from '../python/requirements.ts';

export interface Converted {
  /** Holds what is to be registered in place of the model; the caller removes it. */
  readonly folder: string;
  /** For the person who registers: what was done, and how near the answers are. */
  readonly notes: readonly string[];
}

/** The model stays with Python; `reason` is a sentence's end: "it was not converted: REASON". */
export interface NotConverted {
  readonly reason: string;
}

interface ConvertOptions {
  /** The folder to make; absent: one among temporary files. */
  readonly into?: string;
  /** The interpreter of the version, used as it is: it must have the model's packages and the converter. */
  readonly python?: string;
  readonly timeoutMs?: number;
}

const SCRIPT = fileURLToPath(new URL('../../../python/duckserve_worker/convert_sklearn.py', import.meta.url));
/** A forest of thousands of trees takes its time in the converter. */
const TIMEOUT_MS = 600_000;
/** What the converter needs besides what the model does. */
const CONVERTERS = ['skl2onnx', 'onnx', 'onnxruntime'];

type Context = Pick<EngineContext, 'python' | 'environmentsDir' | 'notify' | 'log'>;

/**
 * `path` is an MLflow directory. The answers of both forms are compared on the input example and on 1,000 random
 * rows in its range: classes must be the same, numbers equal to 1e-6 (1e-5 where the converter has float32 only).
 * What cannot be converted is no error. Throws INVALID_PARAMETER for an MLmodel that cannot be understood.
 */
export async function convertForServing(
  path: string,
  context: Context,
  options: ConvertOptions = {},
): Promise<Converted | NotConverted> {
  const model = await readMlModel(path);
  if (model === undefined) return { reason: `${path} is no MLflow model directory` };
  const isLightgbm = model.flavors.lightgbm !== undefined;
  if (!isLightgbm && model.flavors.sklearn === undefined) {
    return { reason: `only scikit-learn and LightGBM are converted, and it has ${flavorsOf(model)}` };
  }
  const signature = toSignature(model);
  const params = signature?.params ?? [];
  if (signature === undefined || signature.inputs.length === 0) {
    return { reason: 'it has no signature, which says what goes in; save it with signature=...' };
  }
  if (params.length > 0) {
    return { reason: `it takes parameters (${params.map(({ name }) => name).join(', ')})` };
  }
  const folder = options.into ?? (await mkdtemp(join(tmpdir(), 'duckserve-convert-')));
  const work = await mkdtemp(join(tmpdir(), 'duckserve-convert-'));
  let isKept = false;
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const python = await pythonFor(model, isLightgbm ? [] : CONVERTERS, work, context, options);
    if (typeof python !== 'string') return python;
    await writeFile(join(work, 'signature.json'), JSON.stringify({ inputs: signature.inputs }));
    context.notify('Converting the model so that it is served without Python');
    const run = await runScript(python, model, work, context, options.timeoutMs ?? TIMEOUT_MS);
    if ('reason' in run) return run;
    const { result } = run;
    if (result.kind === 'lightgbm') await keepLightgbm(model, result, work, folder);
    else await keepOnnx(model, result, work, folder);
    const refusal = result.kind === 'lightgbm' ? undefined : await refusalOf(folder, result);
    if (refusal !== undefined) return { reason: refusal };
    isKept = true;
    return { folder, notes: textsOf(result.notes) };
  } finally {
    await rm(work, { recursive: true, force: true });
    if (!isKept) await rm(folder, { recursive: true, force: true });
  }
}

function flavorsOf({ flavors }: MlModel): string {
  return Object.keys(flavors).join(', ');
}

/** An interpreter with the packages of the model and the converter, built where there is none. */
async function pythonFor(
  model: MlModel,
  besides: readonly string[],
  work: string,
  context: Context,
  { python }: ConvertOptions,
): Promise<string | NotConverted> {
  try {
    const requirements = await readRequirements(model.folder);
    const lines = requirements?.lines ?? [];
    const local = lines.find((line) => /^(\.|\/|-|code\/)/.test(line));
    if (local !== undefined && python === undefined) {
      return { reason: `its requirements have "${local}", which only its own environment can install` };
    }
    const version = requirements?.pythonVersion;
    const environment = {
      ...(version === undefined ? {} : { python: version }),
      dependencies: [...lines, ...besides],
    };
    await writeFile(join(work, 'python_env.yaml'), JSON.stringify(environment));
    const named = python === undefined ? {} : { python };
    return (await interpreterFor(basename(model.folder), work, named, context)).path;
  } catch (thrown) {
    return { reason: toServingError(thrown).message };
  }
}

/** What the script has written, or why it has not. Its output is the model's: to the log, never into a message. */
async function runScript(
  python: string,
  model: MlModel,
  work: string,
  { log }: Context,
  timeoutMs: number,
): Promise<{ readonly result: JsonObject } | NotConverted> {
  const failure = await new Promise<Error | null>((resolve) => {
    const parameters = [SCRIPT, model.folder, work, join(work, 'signature.json')];
    const settings = {
      cwd: model.folder,
      env: modelEnvironment(process.env, {}, (reference) => reference).variables,
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      maxBuffer: 64 * 1024 * 1024,
    } as const;
    execFile(python, parameters, settings, (error, _stdout, stderr) => {
      if (stderr !== '') log.debug({ stderr: stderr.slice(-4000) }, 'the converter has said');
      resolve(error);
    });
  });
  const text = await readFile(join(work, 'result.json'), 'utf8').catch(() => undefined);
  if (text === undefined) {
    const wasKilled = failure !== null && 'killed' in failure && failure.killed === true;
    return {
      reason: wasKilled
        ? `the converter took longer than ${timeoutMs / 1000} s`
        : 'the converter ended without a result; its output is in the log (level debug)',
    };
  }
  const result = JSON.parse(text) as Json;
  if (!isJsonObject(result)) return { reason: 'the converter gave no result' };
  return result.ok === true ? { result } : { reason: textOf(result.reason) };
}

/** A signature.json beside the .onnx keeps names and types of the columns. */
async function keepOnnx(model: MlModel, result: JsonObject, work: string, folder: string): Promise<void> {
  await writeFile(join(folder, 'model.onnx'), await readFile(join(work, 'model.onnx')));
  const signature = toSignature(model);
  const unused = textsOf(result.unused);
  const inputs = signature?.inputs.filter(({ name }) => !unused.includes(name)) ?? [];
  // A tensor's width is in the ONNX file; its columns have no names.
  const isTable = inputs.every(({ shape }) => shape === undefined);
  const columns = inputs.map(({ name, type, required }) => ({ name, type, required }));
  const [output] = signature?.outputs ?? [];
  const name = output === undefined || output.isUnnamed === true ? 'prediction' : output.name;
  const outputs = [{ name, type: textOf(result.outputType), required: true }];
  await writeFile(
    join(folder, 'signature.json'),
    JSON.stringify({ ...(isTable ? { inputs: columns } : {}), outputs }, null, 2),
  );
}

/**
 * Why the ONNX engine would not do for it. NULL reaches a graph only where the engine sees that the graph deals with
 * it; a model that takes missing values must not begin to refuse them.
 */
async function refusalOf(folder: string, result: JsonObject): Promise<string | undefined> {
  const { inspectTabularModel } = await import('../onnx/tabular.ts');
  try {
    const { options } = await inspectTabularModel(join(folder, 'model.onnx'));
    if (result.needsMissing !== true || options.toleratesMissing === true) return undefined;
    return 'its numbers may be missing, and its ONNX form would be asked for whole rows only';
  } catch (thrown) {
    return toServingError(thrown).message;
  }
}

/** An MLmodel of the text, with the classes that scikit-learn's interface has and the text has not. */
async function keepLightgbm(model: MlModel, result: JsonObject, work: string, folder: string): Promise<void> {
  await writeFile(join(folder, 'model.txt'), await readFile(join(work, 'model.txt')));
  const flavor = {
    data: 'model.txt',
    model_class: textOf(model.flavors.lightgbm?.model_class),
    ...(result.classes === undefined ? {} : { classes: result.classes }),
  };
  const { signature } = model.document;
  // JSON is YAML too.
  await writeFile(
    join(folder, MLMODEL),
    JSON.stringify({ flavors: { lightgbm: flavor }, ...(signature === undefined ? {} : { signature }) }),
  );
}

function textOf(value: Json | undefined): string {
  return typeof value === 'string' ? value : '';
}

function textsOf(value: Json | undefined): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}
