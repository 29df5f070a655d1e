// Which flavour of an MLflow model is served, by which engine: one that needs no Python where there is one. Looks at
// MLmodel only; whether the engine can read the file, the engine says.
import { join, posix } from 'node:path';
import type { EngineKind } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { AgentKind } from '../python/options.ts';
import { MLMODEL, type MlModel } from './mlmodel.ts';
import { show } from './refusal.ts';

export interface FlavourChoice {
  readonly flavour: string;
  readonly engine: Extract<EngineKind, 'onnx' | 'trees' | 'python'>;
  /** Relative to the directory. */
  readonly mainFile: string;
}

const NATIVE = [
  ['onnx', 'onnx'],
  ['xgboost', 'trees'],
  ['lightgbm', 'trees'],
] as const;
export const PYTHON_FLAVOUR = 'python_function';

/** What could serve the model, best first. Throws INVALID_PARAMETER when nothing here can. */
export function flavourChoices(model: MlModel, engine: EngineKind | undefined): readonly FlavourChoice[] {
  const choices: FlavourChoice[] = [];
  for (const [flavour, kind] of NATIVE) {
    const file = dataFile(model.flavors[flavour]);
    if (file !== undefined) choices.push({ flavour, engine: kind, mainFile: file });
  }
  if (model.flavors[PYTHON_FLAVOUR] !== undefined)
    choices.push({ flavour: PYTHON_FLAVOUR, engine: 'python', mainFile: MLMODEL });
  const wanted = engine === undefined ? choices : choices.filter((choice) => choice.engine === engine);
  if (wanted.length > 0) return wanted;
  const found = Object.keys(model.flavors).slice(0, 20).join(', ');
  throw new ServingError(
    'INVALID_PARAMETER',
    `The MLflow model in ${model.folder} has the flavours ${found}; ${
      engine === undefined
        ? 'served are onnx, xgboost, lightgbm and python_function. Log it with one of them'
        : `the engine ${engine} serves none of them. Leave the engine out to see what can`
    }.`,
  );
}

/** LightGBM's scikit-learn models are pickles under the same member. */
function dataFile(flavour: JsonObject | undefined): string | undefined {
  const data = flavour?.data;
  return typeof data === 'string' && data !== '' && !/\.(pkl|pickle|joblib|skops)$/i.test(data)
    ? posix.normalize(data)
    : undefined;
}

/** What the worker calls an agent, by what MLflow's agents say in their metadata and loaders. */
export function agentKind({ metadata, flavors }: MlModel): AgentKind | undefined {
  const loader = String(flavors[PYTHON_FLAVOUR]?.loader_module ?? '');
  if (metadata.task === 'agent/v1/responses' || loader.endsWith('.responses_agent')) return 'responses';
  if (metadata.task === 'agent/v2/chat' || loader.endsWith('.chat_agent')) return 'chat_agent';
  if (metadata.task === 'agent/v1/chat' || loader.endsWith('.chat_model')) return 'chat_model';
  return undefined;
}

/** What of the model is program, in words for the person who allows it. */
export function codeIn(model: MlModel): readonly string[] {
  const python = model.flavors[PYTHON_FLAVOUR] ?? {};
  const found: string[] = [];
  const loader = String(python.loader_module ?? '');
  if (loader !== '' && !/^mlflow(\.|$)/.test(loader))
    found.push(`its own module ${show(loader)} as the loader`);
  if (typeof python.model_code_path === 'string')
    found.push(`the Python file ${show(python.model_code_path.split(/[\\/]/).at(-1))}`);
  const code = [python.code, ...Object.values(model.flavors).map((flavour) => flavour.code)].find(
    (member) => typeof member === 'string',
  );
  if (code !== undefined) found.push(`the Python files in ${show(code)}`);
  found.push(...new Set(pickles(model).map((file) => `the pickle ${show(file)}, which can run any code`)));
  return found;
}

function pickles({ flavors }: MlModel): string[] {
  return Object.entries(flavors).flatMap(([name, flavour]) => {
    const files = [
      'python_model',
      'pickled_model',
      'model_path',
      'data',
      'model_data',
      'model_binary',
    ].flatMap((member) => (typeof flavour[member] === 'string' ? [flavour[member]] : []));
    const isPickled = ['sklearn', 'pytorch', 'statsmodels', 'pmdarima'].includes(name);
    return files.filter((file) => isPickled || /\.(pkl|pickle|joblib|cloudpickle|pth?|skops)$/i.test(file));
  });
}

export function dataPath({ folder }: MlModel, { mainFile }: FlavourChoice): string {
  return join(folder, mainFile);
}
