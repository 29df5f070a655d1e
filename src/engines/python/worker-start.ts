// From a registered version to a worker with its model loaded: which folder, which interpreter, which variables.
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { ModelVersion, Signature, Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import { readMlModel, toSignature } from '../mlflow/mlmodel.ts';
import { interpreterFor } from './environments.ts';
import { type PythonOptions, pythonOptionsOf } from './options.ts';
import { modelEnvironment } from './process-environment.ts';
import { Worker } from './worker.ts';

/** What a process that could not start has written is read for so long. */
const LAST_WORDS_MS = 500;

export interface Started {
  readonly worker: Worker;
  readonly options: PythonOptions;
  readonly signature: Signature | undefined;
  /** Of an agent: it can answer as events. */
  readonly streams: boolean;
}

/** Throws MODEL_NOT_AVAILABLE with the way out, INVALID_PARAMETER for options, SECRET_NOT_FOUND. */
export async function startWorker(target: Target, context: EngineContext): Promise<Started> {
  const version = target.modelVersion;
  if (version === undefined) {
    throw new ServingError(
      'WRONG_TASK',
      `Served entity "${target.servedEntity}" is no registered model, and Python runs only those.`,
    );
  }
  const options = pythonOptionsOf(version);
  const folder = await folderOf(target.model, version);
  const model = await readMlModel(folder);
  const flavour = model?.flavors.python_function;
  if (flavour === undefined && options.loaderModule === undefined) {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `Model "${target.model}" has no flavour python_function in ${folder}, so Python cannot load it. Save it with mlflow.pyfunc or a flavour of MLflow, and register it again.`,
    );
  }
  const { variables, secrets } = modelEnvironment(
    process.env,
    target.environment ?? {},
    (reference) => context.resolveSecret(reference),
    options.threads,
  );
  const python = await interpreterFor(target.model, folder, options, context);
  const scratch = await mkdtemp(join(tmpdir(), 'duckserve-worker-'));
  const worker = new Worker({
    model: target.model,
    python: python.path,
    scratch,
    environment: variables,
    secrets,
    maxConcurrency: options.maxConcurrency,
    memoryMb: options.memoryMb,
    log: context.log,
    clock: SYSTEM_CLOCK,
  });
  void worker.lost.then(() => rm(scratch, { recursive: true, force: true }).catch(() => {}));
  const text = (value: Json | undefined) => (typeof value === 'string' ? value : null);
  const header: JsonObject = {
    folder,
    loader_module: options.loaderModule ?? text(flavour?.loader_module),
    data: text(flavour?.data),
    code: text(flavour?.code),
    agent: options.agent ?? null,
    threads: options.maxConcurrency,
  };
  let streams = false;
  try {
    const { header: ready } = await worker.request('load', {
      header,
      timeoutMs: options.startSeconds * 1_000,
    });
    streams = ready.streams === true;
    const { python: running, loaded_with: loadedWith, seconds } = ready;
    context.log.info(
      {
        model: target.model,
        pid: worker.pid,
        python: running ?? null,
        loadedWith: loadedWith ?? null,
        seconds: seconds ?? null,
      },
      'A worker of Python has loaded its model.',
    );
  } catch (thrown) {
    await worker.close();
    await Promise.race([worker.drained, SYSTEM_CLOCK.sleep(LAST_WORDS_MS)]);
    throw notStarted(target.model, python.path, toServingError(thrown), worker.output.lastLines);
  }
  return { worker, options, signature: version.signature ?? (model && toSignature(model)), streams };
}

/** The version's source is the folder, or a file in it. */
async function folderOf(model: string, { source }: ModelVersion): Promise<string> {
  const found = await stat(source).catch((cause: unknown) => {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The files of model "${model}" are not at ${source}. Register the model again.`,
      { cause },
    );
  });
  return found.isDirectory() ? source : dirname(source);
}

/** A worker that dies before it is ready has said why on its standard error. */
function notStarted(
  model: string,
  python: string,
  error: ServingError,
  lastLines: readonly string[],
): ServingError {
  if (error.code !== 'MODEL_CRASHED') return error;
  const said = lastLines.length === 0 ? '' : ` It wrote last:\n${lastLines.slice(-8).join('\n')}`;
  return new ServingError(
    'MODEL_NOT_AVAILABLE',
    `Model "${model}" could not be started with ${python}: ${error.message.replace(/ It is started again.*$/, '')}${said}`,
    { cause: error },
  );
}
