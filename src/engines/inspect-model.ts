// What a file that somebody registers is: which engine runs it, for which task, with which signature.
// Only looks, apart from unpacking an archive; copying and versioning are the registry's.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import type { EngineKind, ModelInspection } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { readGgufHead } from './llama/gguf-file.ts';
import { ARCHIVE_LIMITS, isArchive, unpackArchive } from './mlflow/archive.ts';
import { type InspectOptions, inspectMlModel } from './mlflow/inspect.ts';
import { MLMODEL, readMlModel } from './mlflow/mlmodel.ts';
import { findModule, inspectModule, isModulePath } from './module/inspect.ts';

export interface InspectModelOptions extends InspectOptions {
  /** A folder to make for files that come of what is given; the caller removes it. Absent: archives are refused. */
  readonly unpackInto?: string;
  /** A model that needs Python is turned into one that does not, where that can be done. */
  readonly convert?: boolean;
  /** Of an archive's files once they are unpacked. */
  readonly maxBytes?: number;
}

/** Engines that run what their own inspection has found, and nothing else. */
const OWN_FORMATS: readonly EngineKind[] = ['python', 'trees', 'module'];
const TREE_ENDINGS = ['.json', '.ubj', '.xgb', '.bst', '.txt', '.lgb', '.model'];
const PICKLE_ENDINGS = ['.pkl', '.pickle', '.joblib', '.cloudpickle', '.pt', '.pth', '.skops'];
const KNOWN =
  'an MLflow model directory, an .onnx or .gguf file, an XGBoost or LightGBM model (.json, .ubj, .txt), a module ' +
  '(.mjs), a folder with an .onnx and its tokenizer.json, or a .zip or .tar.gz of one of these';

/**
 * `path`: see the message for unknown files. Throws INVALID_PARAMETER for what cannot be served, is damaged, or is a
 * program that was not allowed; MODEL_NOT_AVAILABLE where what it needs is not on this machine.
 */
export async function inspectModel(
  path: string,
  options: InspectModelOptions = {},
): Promise<ModelInspection> {
  if (!existsSync(path)) {
    throw new ServingError('INVALID_PARAMETER', `There is no file or folder ${path}.`);
  }
  const found = await inspectPath(path, options);
  const { engine = found.engine } = options;
  if (engine === found.engine || !OWN_FORMATS.includes(engine)) return found;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${path} is a model for the engine ${found.engine}, and ${engine} cannot run it. Leave the engine out.`,
  );
}

async function inspectPath(path: string, options: InspectModelOptions): Promise<ModelInspection> {
  if (statSync(path).isDirectory()) return await inspectFolder(path, options);
  if (basename(path) === MLMODEL) return await inspectFolder(dirname(path), options);
  if (isArchive(path)) return await inspectArchive(path, options);
  const ending = extname(path).toLowerCase();
  if (ending === '.gguf') return await inspectGguf(path);
  if (ending === '.onnx') return await inspectOnnx(path);
  if (isModulePath(path)) return await inspectAgent(path, options);
  if (TREE_ENDINGS.includes(ending)) return await inspectTreeFile(path);
  throw unknownFile(path, ending);
}

async function inspectFolder(path: string, options: InspectModelOptions): Promise<ModelInspection> {
  const model = await readMlModel(path);
  if (model !== undefined) {
    const found = await inspectMlModel(model, options);
    return options.convert === true ? await convert(path, found, options) : found;
  }
  const names = readdirSync(path);
  const gguf = names.find((name) => name.toLowerCase().endsWith('.gguf'));
  if (gguf) return await inspectGguf(join(path, gguf));
  if (names.includes('tokenizer.json')) return { engine: 'onnx', task: 'llm/v1/embeddings', options: {} };
  const onnx = names.find((name) => name.toLowerCase().endsWith('.onnx'));
  if (onnx) return await inspectOnnx(join(path, onnx));
  const { inspectTrees } = await import('./trees/inspect.ts');
  const trees = await inspectTrees(path);
  if (trees !== undefined) return trees;
  if ((await findModule(path)) !== undefined) return await inspectAgent(path, options);
  throw new ServingError(
    'INVALID_PARAMETER',
    `The folder ${path} holds no MLmodel, no .onnx, .gguf or tree model, and no agent. Give ${KNOWN}.`,
  );
}

async function inspectGguf(path: string): Promise<ModelInspection> {
  await readGgufHead(path);
  return { engine: 'llama', task: 'llm/v1/chat', options: {} };
}

/** A tokenizer beside it makes an ONNX file a text model; else it is a tabular one. */
async function inspectOnnx(path: string): Promise<ModelInspection> {
  if (existsSync(join(path, '..', 'tokenizer.json')))
    return { engine: 'onnx', task: 'llm/v1/embeddings', options: {} };
  const { inspectTabularModel } = await import('./onnx/tabular.ts');
  const { signature, options } = await inspectTabularModel(path);
  return { engine: 'onnx', task: 'predict', signature, options };
}

async function inspectTreeFile(path: string): Promise<ModelInspection> {
  const { inspectTrees } = await import('./trees/inspect.ts');
  const found = await inspectTrees(path);
  if (found !== undefined) return found;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${path} is neither an XGBoost nor a LightGBM model. Give ${KNOWN}.`,
  );
}

async function inspectAgent(path: string, options: InspectModelOptions): Promise<ModelInspection> {
  const found = await inspectModule(path);
  if (options.allowCode === true) return found;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${path} is a program: serving it would run the module. If you trust where it comes from, allow it: ` +
      'models register ... --allow-code, or allow_code := true in SQL.',
    { details: { code: [`the module ${basename(path)}`] } },
  );
}

/** What cannot be converted stays as it is, with a note why. */
async function convert(
  path: string,
  found: ModelInspection,
  options: InspectModelOptions,
): Promise<ModelInspection> {
  const { notes = [] } = found;
  const { unpackInto, context } = options;
  const python = options.options?.python;
  if (found.engine !== 'python')
    return { ...found, notes: [...notes, 'it needs no Python, so nothing was converted'] };
  if (found.task !== 'predict')
    return { ...found, notes: [...notes, 'it was not converted: it is an agent'] };
  if (unpackInto === undefined || context === undefined)
    throw new ServingError('INTERNAL', 'There is no place to convert a model in.');
  const { convertForServing } = await import('./convert/convert.ts');
  const converted = await convertForServing(path, context, {
    into: join(unpackInto, 'converted'),
    ...(typeof python === 'string' ? { python } : {}),
  });
  if ('reason' in converted)
    return { ...found, notes: [...notes, `it was not converted: ${converted.reason}`] };
  const { convert: _, engine: __, ...rest } = options;
  const inspected = await inspectModel(converted.folder, rest);
  const { flavour = '' } = found;
  return { ...inspected, flavour, files: converted.folder, notes: [...notes, ...converted.notes] };
}

/** Messages about what is in an archive name the archive, not the folder it was unpacked into. */
async function inspectArchive(path: string, options: InspectModelOptions): Promise<ModelInspection> {
  const { unpackInto, maxBytes = ARCHIVE_LIMITS.maxBytes } = options;
  if (unpackInto === undefined)
    throw new ServingError('INVALID_PARAMETER', `${path} is an archive. Unpack it, and give the folder.`);
  const into = join(unpackInto, 'archive');
  await mkdir(into, { recursive: true, mode: 0o700 });
  try {
    const files = await unpackArchive(path, into, { ...ARCHIVE_LIMITS, maxBytes });
    if (isArchive(files)) {
      throw new ServingError('INVALID_PARAMETER', `${path} holds another archive. Unpack it, and give that.`);
    }
    return { files, ...(await inspectModel(files, options)) };
  } catch (error) {
    if (!(error instanceof ServingError) || !error.message.includes(into)) throw error;
    throw new ServingError(error.code, error.message.replaceAll(into, path), {
      details: error.details,
      cause: error,
    });
  }
}

function unknownFile(path: string, ending: string): ServingError {
  const reason = PICKLE_ENDINGS.includes(ending)
    ? `${path} is a pickle, which can run any code when it is read and says nothing of its columns. Log the model with ` +
      'MLflow (mlflow.sklearn.save_model(...), mlflow.pyfunc.save_model(...)) and register the directory'
    : `${path} is not a model duckserve can run: give ${KNOWN}`;
  return new ServingError('INVALID_PARAMETER', `${reason}.`);
}
