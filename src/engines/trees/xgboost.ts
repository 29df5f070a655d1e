// XGBoost models saved as JSON or UBJSON: from the document to features, trees and objective. The trees themselves
// are read in xgboost-trees.ts.
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { Place } from './document.ts';
import { ForestBuilder } from './forest.ts';
import { type Link, toMargin } from './links.ts';
import type { TreeFeature, TreeModel } from './tree-model.ts';
import { parseUbjson } from './ubjson.ts';
import { addXgboostTrees } from './xgboost-trees.ts';

const IDENTITY: Link = { kind: 'identity' };
const LOGISTIC: Link = { kind: 'logistic', slope: 1 };
const EXP: Link = { kind: 'exp' };
const LINKS: Readonly<Record<string, Link>> = {
  'reg:squarederror': IDENTITY,
  'reg:linear': IDENTITY,
  'reg:squaredlogerror': IDENTITY,
  'reg:pseudohubererror': IDENTITY,
  'reg:absoluteerror': IDENTITY,
  'reg:quantileerror': IDENTITY,
  'reg:expectileerror': IDENTITY,
  'reg:logistic': LOGISTIC,
  'reg:gamma': EXP,
  'reg:tweedie': EXP,
  'count:poisson': EXP,
  'binary:logistic': LOGISTIC,
  'binary:logitraw': IDENTITY,
  'binary:hinge': { kind: 'step' },
  'multi:softprob': { kind: 'softmax' },
  'multi:softmax': { kind: 'argmax' },
  'rank:pairwise': IDENTITY,
  'rank:ndcg': IDENTITY,
  'rank:map': IDENTITY,
  'survival:cox': EXP,
  'survival:aft': EXP,
};

const OPEN = 0x7b;
/** More of either is a damaged file. */
const MAX_FEATURES = 1_000_000;
const MAX_OUTPUTS = 100_000;

/** Whether bytes can be a model in JSON or UBJSON: `{` with a key after it. */
export function looksLikeXgboost(bytes: Uint8Array): boolean {
  const [first, second = 0] = bytes;
  return (
    first === OPEN && (second === 0x22 || second <= 0x20 || 'LlIiU'.includes(String.fromCharCode(second)))
  );
}

/** Throws INVALID_PARAMETER for a broken file, an unknown booster or an unknown objective. */
export function parseXgboost(bytes: Uint8Array): TreeModel {
  const document = parseDocument(bytes);
  const learner = document.at('learner');
  if (!learner.isPresent || !learner.at('gradient_booster').isPresent) {
    throw new ServingError(
      'INVALID_PARAMETER',
      'The file is JSON, but no model of XGBoost: it has no `learner` with a `gradient_booster`.',
    );
  }
  const objective = learner.at('objective').at('name').text();
  const link = LINKS[objective];
  if (link === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The objective "${objective}" of the model is not known here, so its predictions would be wrong. Known: ${Object.keys(LINKS).join(', ')}. Log the model with MLflow and register it with --engine python.`,
      { details: { isUnsupported: true } },
    );
  }
  const parameters = learner.at('learner_model_param');
  const targets = Math.max(1, parameters.at('num_target').count(1));
  const outputs = Math.max(1, parameters.at('num_class').count(0), targets);
  if (outputs > MAX_OUTPUTS)
    throw parameters.at('num_class').wrong(`at most ${MAX_OUTPUTS} classes or targets`);
  const features = featuresOf(learner, parameters.at('num_feature').count());
  const common = {
    library: 'xgboost',
    objective,
    ...features,
    outputs,
    base: baseOf(parameters.at('base_score'), objective, outputs),
    link,
    divisor: 1,
    isSingle: true,
    isClassifier: /^(binary|multi):/.test(objective),
    hasSeveralTargets: targets > 1,
  } as const;
  const booster = learner.at('gradient_booster');
  const name = booster.at('name').text();
  if (name === 'gblinear') {
    const count = (features.features.length + 1) * outputs;
    const weights = Float64Array.from(booster.at('model').at('weights').numbers(count), Math.fround);
    // The library adds the first base score to every output here, also where there is one for each.
    const base = common.base.map((_, __, all) => all[0] ?? 0);
    return { ...common, base, forest: new ForestBuilder(1).build(), linear: { weights } };
  }
  if (name !== 'gbtree' && name !== 'dart') {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The booster "${name}" of the model is not known here. Known: gbtree, dart, gblinear.`,
      { details: { isUnsupported: true } },
    );
  }
  const { forest, treesUpTo } = addXgboostTrees(booster, features.features.length, outputs);
  const best = learner.at('attributes').at('best_iteration');
  return {
    ...common,
    forest,
    ...(best.isPresent ? { bestTreeCount: treesUpTo(best.count() + 1) } : {}),
  };
}

function parseDocument(bytes: Uint8Array): Place {
  // UBJSON has the type of a key's length where JSON has a quote.
  if ('LlIiU'.includes(String.fromCharCode(bytes[1] ?? 0))) return new Place(parseUbjson(bytes));
  const text = new TextDecoder().decode(bytes);
  try {
    return new Place(JSON.parse(text) as Json);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ServingError(
      'INVALID_PARAMETER',
      `The model is not whole JSON: ${reason.slice(0, 200)}. Save it again, for example with booster.save_model("model.json").`,
      { cause },
    );
  }
}

/** One number, or since version 3.1 a list in a text: `[5E-1,2E0]`. */
function baseOf(place: Place, objective: string, outputs: number): Float64Array {
  const text = typeof place.value === 'string' ? place.value.trim() : '';
  const scores = text.startsWith('[') ? text.slice(1, -1).split(',').map(Number) : [place.number(0.5)];
  if ((scores.length !== 1 && scores.length !== outputs) || scores.some((score) => !Number.isFinite(score))) {
    throw place.wrong(outputs === 1 ? 'one number' : `one number, or a list of ${outputs}`);
  }
  return Float64Array.from({ length: outputs }, (_, index) =>
    toMargin(objective, scores[scores.length === 1 ? 0 : index] ?? 0),
  );
}

const TYPES = { i: 'boolean', int: 'long' } as const;

function featuresOf(learner: Place, count: number): { features: TreeFeature[]; hasNames: boolean } {
  if (count === 0 || count > MAX_FEATURES) {
    throw learner.at('learner_model_param').at('num_feature').wrong(`1 to ${MAX_FEATURES}`);
  }
  const listOf = (name: string) => (learner.at(name).isPresent ? learner.at(name).texts() : []);
  const names = listOf('feature_names');
  const types = listOf('feature_types');
  const hasNames = names.length > 0;
  if (hasNames && names.length !== count) throw learner.at('feature_names').wrong(`a list of ${count} names`);
  const categories = categoriesOf(learner, count);
  const features = Array.from({ length: count }, (_, index): TreeFeature => {
    const name = names[index] ?? `f${index}`;
    const type = types[index] ?? 'float';
    const known = categories[index];
    if (known !== undefined && type === 'c') {
      return { name, type: typeof known[0] === 'string' ? 'string' : 'double', categories: known };
    }
    // A column of whole numbers may hold NULL, and any number can be compared: doubles take all of it.
    return { name, type: type === 'i' ? TYPES.i : 'double' };
  });
  return { features, hasNames };
}

/** Categories that version 3.1 and later keep in the model: texts in one piece with offsets, or numbers. */
function categoriesOf(learner: Place, count: number): readonly (TreeFeature['categories'] | undefined)[] {
  const booster = learner.at('gradient_booster');
  const model = booster.at(booster.at('gbtree').isPresent ? 'gbtree' : 'model');
  const cats = (booster.at('gbtree').isPresent ? model.at('model') : model).at('cats');
  if (!cats.at('enc').isPresent) return [];
  const encodings = cats.at('enc').list();
  if (encodings.length !== 0 && encodings.length !== count) throw cats.at('enc').wrong(`a list of ${count}`);
  return encodings.map((encoding) => {
    const values = encoding.at('values').numbers();
    if (!encoding.at('offsets').isPresent) return values.length === 0 ? undefined : Array.from(values);
    const offsets = encoding.at('offsets').numbers();
    if (offsets.length < 2) return undefined;
    const bytes = Uint8Array.from(values);
    const decoder = new TextDecoder();
    return Array.from({ length: offsets.length - 1 }, (_, index) =>
      decoder.decode(bytes.subarray(offsets[index], offsets[index + 1])),
    );
  });
}
