// What a file or an MLflow directory of XGBoost or LightGBM is: engine, signature, and the options its version keeps.
// Also loads the model again when it is opened. Only files that are text or JSON: pickles are never read.
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, relative, sep } from 'node:path';
import type { ModelInspection, Signature, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { isJsonObject } from '#core/json.ts';
import { MLMODEL, type MlModel, readMlModel, toSignature } from '../mlflow/mlmodel.ts';
import { matchFeatures } from './columns.ts';
import { looksLikeLightgbm, parseLightgbm } from './lightgbm.ts';
import { PREDICTS, Predictor, type PredictorOptions } from './predictor.ts';
import type { TreeModel } from './tree-model.ts';
import { looksLikeXgboost, parseXgboost } from './xgboost.ts';

/** A larger one would hold up everybody while it is parsed. */
const MAX_BYTES = 1024 * 1024 * 1024;
const EXTENSIONS: readonly string[] = ['.json', '.ubj', '.xgb', '.bst', '.model', '.txt', '.lgb'];
/** In a folder without an MLmodel only names that mean a model count. */
const FOLDER_FILE = /^(.*\.(ubj|xgb|bst|lgb)|model\.(json|txt))$/i;
/** Flavours of MLflow this engine reads. */
const FLAVORS = ['xgboost', 'lightgbm'] as const;

/**
 * `path` is a model file, an MLflow directory (or its MLmodel), or a folder with one model file. Undefined when it is
 * none of ours, or a model that only its library can run while the directory has `python_function`. Throws
 * INVALID_PARAMETER for one that is broken, or that nothing here can run.
 */
export async function inspectTrees(path: string): Promise<ModelInspection | undefined> {
  const found = await findModel(path);
  if (found === undefined) return undefined;
  const { file, mlmodel } = found;
  try {
    const model = await loadTrees(file);
    const options = optionsOf(model, mlmodel);
    const signature = signatureOf(model, mlmodel, readOptions(options, file));
    return {
      engine: 'trees',
      task: 'predict',
      signature,
      options,
      mainFile:
        found.folder === undefined ? basename(file) : relative(found.folder, file).split(sep).join('/'),
    };
  } catch (error) {
    const hasPython = mlmodel?.flavors.python_function !== undefined;
    if (hasPython && error instanceof ServingError && error.details.isUnsupported === true) return undefined;
    throw error;
  }
}

/** Throws INVALID_PARAMETER when it is no model of trees, MODEL_NOT_AVAILABLE when it cannot be read. */
export async function loadTrees(file: string): Promise<TreeModel> {
  const bytes = await read(file);
  if (looksLikeLightgbm(bytes)) return parseLightgbm(bytes);
  if (looksLikeXgboost(bytes)) return parseXgboost(bytes);
  throw new ServingError('INVALID_PARAMETER', `${file} ${whyNot(bytes)}`, {
    details: { isUnsupported: true },
  });
}

/** Options of a version, as they were kept or given with `--option`. Throws INVALID_PARAMETER. */
export function readOptions(options: JsonObject, shown: string): PredictorOptions {
  const { predicts = 'values', usesBestIteration = false } = options;
  // A command line has texts only.
  const labels = typeof options.labels === 'string' ? options.labels.split(',') : options.labels;
  const known = PREDICTS.find((name) => name === predicts);
  if (known === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option predicts of ${shown} is ${JSON.stringify(predicts)}; it must be one of ${PREDICTS.join(', ')}.`,
    );
  }
  const isLabel = (label: Json) => typeof label === 'string' || typeof label === 'number';
  if (labels !== undefined && !(Array.isArray(labels) && labels.every(isLabel))) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option labels of ${shown} is ${JSON.stringify(labels).slice(0, 80)}; it must be a list of class names.`,
    );
  }
  return {
    predicts: known,
    usesBestIteration: usesBestIteration === true || usesBestIteration === 'true',
    ...(labels === undefined ? {} : { labels }),
  };
}

/** What goes in and out where no MLmodel says it. */
export function signatureOf(
  model: TreeModel,
  mlmodel: MlModel | undefined,
  options: PredictorOptions,
): Signature {
  const given = mlmodel === undefined ? undefined : toSignature(mlmodel);
  const isTable = given !== undefined && given.inputs.length > 0 && given.inputs.every(isPlain);
  const own = model.features.map(({ name, type }): SignatureColumn => ({ name, type, required: true }));
  const inputs = isTable ? given.inputs : own;
  matchFeatures(model, inputs);
  const [named] = given?.outputs.length === 1 ? given.outputs : [];
  const { width } = new Predictor(model, options);
  const isClass = options.predicts === 'classes';
  const output: SignatureColumn = {
    name: named?.isUnnamed === true || named === undefined ? 'prediction' : named.name,
    type: isClass
      ? typeof options.labels?.[0] === 'string'
        ? 'string'
        : 'long'
      : model.isSingle
        ? 'float'
        : 'double',
    required: true,
    ...(width > 1 ? { width } : {}),
  };
  return { inputs, outputs: [output] };
}

function isPlain({ shape, type }: SignatureColumn): boolean {
  return shape === undefined && type !== 'json' && type !== 'binary' && type !== 'datetime';
}

interface Found {
  readonly file: string;
  /** What was given, when it was a folder (or the MLmodel in it). */
  readonly folder?: string;
  readonly mlmodel?: MlModel;
}

async function findModel(path: string): Promise<Found | undefined> {
  const kind = await stat(path).catch(() => undefined);
  if (kind === undefined) return undefined;
  if (!kind.isDirectory() && basename(path) !== MLMODEL) {
    return EXTENSIONS.includes(extname(path).toLowerCase()) ? { file: path } : undefined;
  }
  const folder = kind.isDirectory() ? path : dirname(path);
  const mlmodel = await readMlModel(folder);
  if (mlmodel === undefined) {
    const names = (await readdir(folder)).filter((name) => FOLDER_FILE.test(name));
    const [only] = names;
    return names.length === 1 && only !== undefined ? { file: join(folder, only), folder } : undefined;
  }
  const flavor = FLAVORS.map((name) => mlmodel.flavors[name]).find((found) => found !== undefined);
  const data = flavor?.data ?? mlmodel.flavors.python_function?.data;
  // LightGBM's scikit-learn interface is saved as a pickle: its classes are nowhere else.
  if (flavor === undefined || typeof data !== 'string' || !EXTENSIONS.includes(extname(data).toLowerCase())) {
    return undefined;
  }
  return { file: join(folder, data), folder, mlmodel };
}

async function read(file: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(file);
    if (size > MAX_BYTES) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `${file} has ${size} bytes; models of trees are read up to ${MAX_BYTES}.`,
      );
    }
    return await readFile(file);
  } catch (cause) {
    if (cause instanceof ServingError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The model file ${file} cannot be read (${reason}). Register the model again.`,
      { cause },
    );
  }
}

function whyNot(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'is empty.';
  const isPickle = bytes[0] === 0x80 && (bytes[1] ?? 9) <= 5;
  if (isPickle) {
    return 'is a pickle, which is a program and is not read here. Save the booster itself: booster.save_model("model.json").';
  }
  return (
    'is no model of XGBoost (JSON or UBJSON) and none of LightGBM (text). XGBoost before 2.1 wrote a binary format by default: ' +
    'load the file with the version that wrote it and save it again as JSON, with booster.save_model("model.json").'
  );
}

/** What the version keeps: how MLflow would ask the library, by the class that was logged. */
function optionsOf(model: TreeModel, mlmodel: MlModel | undefined): JsonObject {
  const flavor = mlmodel?.flavors[model.library];
  const modelClass = isJsonObject(flavor) && typeof flavor.model_class === 'string' ? flavor.model_class : '';
  const params = mlmodel?.signature?.params ?? [];
  if (model.library === 'xgboost' && params.length > 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The model takes parameters of XGBoost's predict (${params.map(({ name }) => name).join(', ')}), which are not known here. Register it with --engine python.`,
      { details: { isUnsupported: true } },
    );
  }
  const isSklearn = /\bXGB\w+$/.test(modelClass);
  const isClassifier = modelClass.endsWith('Classifier');
  // Written by a conversion (engines/convert); MLflow keeps them in a pickle only.
  const labels = model.library === 'lightgbm' && isJsonObject(flavor) ? flavor.classes : undefined;
  if (labels !== undefined) {
    return { library: model.library, objective: model.objective, modelClass, predicts: 'classes', labels };
  }
  return {
    library: model.library,
    objective: model.objective,
    ...(modelClass === '' ? {} : { modelClass }),
    predicts: isSklearn && isClassifier ? 'classes' : 'values',
    ...(isSklearn && model.bestTreeCount !== undefined ? { usesBestIteration: true } : {}),
  };
}
