// LightGBM models saved as text: the head (features, objective), and what its end says of categories of pandas. The
// trees themselves are read in lightgbm-trees.ts.
import { ServingError } from '#core/errors.ts';
import { ForestBuilder } from './forest.ts';
import { readTree } from './lightgbm-trees.ts';
import type { Link } from './links.ts';
import type { TreeFeature, TreeModel } from './tree-model.ts';

/** A model may have this many features; one column more than that is a damaged file. */
const MAX_FEATURES = 1_000_000;
const MAX_OUTPUTS = 100_000;

const IDENTITY: Link = { kind: 'identity' };
const EXP: Link = { kind: 'exp' };
const LINKS: Readonly<Record<string, (slope: number) => Link>> = {
  regression: () => IDENTITY,
  regression_l1: () => IDENTITY,
  huber: () => IDENTITY,
  fair: () => IDENTITY,
  quantile: () => IDENTITY,
  mape: () => IDENTITY,
  poisson: () => EXP,
  gamma: () => EXP,
  tweedie: () => EXP,
  binary: (slope) => ({ kind: 'logistic', slope }),
  multiclass: () => ({ kind: 'softmax' }),
  multiclassova: (slope) => ({ kind: 'logistic', slope }),
  cross_entropy: () => ({ kind: 'logistic', slope: 1 }),
  cross_entropy_lambda: () => ({ kind: 'log1p-exp' }),
  lambdarank: () => IDENTITY,
  rank_xendcg: () => IDENTITY,
  // The library gives raw sums too for an objective that was a function of its user's.
  custom: () => IDENTITY,
};

export function looksLikeLightgbm(bytes: Uint8Array): boolean {
  return /^tree\r?\n/.test(new TextDecoder('latin1').decode(bytes.subarray(0, 6)));
}

/** Throws INVALID_PARAMETER for a broken file or an unknown objective. */
export function parseLightgbm(bytes: Uint8Array): TreeModel {
  const { head, trees, tail } = toSections(new TextDecoder().decode(bytes));
  const outputs = Math.max(1, countOf(head, 'num_tree_per_iteration'));
  const featureCount = countOf(head, 'max_feature_idx') + 1;
  if (outputs > MAX_OUTPUTS) throw broken(`it says that it has ${outputs} outputs`);
  if (featureCount > MAX_FEATURES) throw broken(`it says that it has ${featureCount} features`);
  const names = (head.get('feature_names') ?? '').split(' ').filter((name) => name !== '');
  if (names.length !== featureCount)
    throw broken(`it has ${names.length} names for ${featureCount} features`);
  const { link, objective } = readObjective(head.get('objective') ?? 'custom');
  const categories = categoriesOf(tail, featureCount);
  const builder = new ForestBuilder(featureCount);
  for (const [index, lines] of trees.entries()) builder.add(readTree(lines, index), index % outputs);
  return {
    library: 'lightgbm',
    objective,
    features: names.map((name, index): TreeFeature => {
      const known = categories[index];
      if (known === undefined) return { name, type: 'double' };
      return { name, type: typeof known[0] === 'string' ? 'string' : 'double', categories: known };
    }),
    hasNames: !names.every((name, index) => name === `Column_${index}`),
    forest: builder.build(),
    outputs,
    base: new Float64Array(outputs),
    link,
    divisor: head.has('average_output') ? Math.max(1, trees.length / outputs) : 1,
    isSingle: false,
    isClassifier: /^(binary|multiclass)/.test(objective),
    hasSeveralTargets: false,
  };
}

type Lines = ReadonlyMap<string, string>;

/** `key=value` lines of the head and of each tree, and the text after the trees. */
function toSections(text: string): { head: Lines; trees: Lines[]; tail: string } {
  const end = text.indexOf('\nend of trees');
  if (end < 0) throw broken('it ends before the line "end of trees"');
  const [head = '', ...trees] = text.slice(0, end).split(/\r?\n(?=Tree=\d)/);
  return { head: toLines(head), trees: trees.map(toLines), tail: text.slice(end) };
}

function toLines(text: string): Lines {
  const lines = new Map<string, string>();
  for (const line of text.split('\n')) {
    const at = line.indexOf('=');
    const key = (at < 0 ? line : line.slice(0, at)).trim();
    if (key !== '') lines.set(key, at < 0 ? '' : line.slice(at + 1).trim());
  }
  return lines;
}

function countOf(head: Lines, name: string): number {
  const count = Number(head.get(name) ?? Number.NaN);
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw broken(`its \`${name}\` is ${JSON.stringify(head.get(name)) ?? 'missing'}, not a number of things`);
}

/** A name, and parameters after it: `binary sigmoid:1`, `regression sqrt`. */
function readObjective(text: string): { objective: string; link: Link } {
  const [objective = '', ...parameters] = text.split(' ');
  const create = Object.hasOwn(LINKS, objective) ? LINKS[objective] : undefined;
  if (create === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The objective "${objective}" of the model is not known here, so its predictions would be wrong. Known: ${Object.keys(LINKS).join(', ')}. Log the model with MLflow and register it with --engine python.`,
      { details: { isUnsupported: true } },
    );
  }
  const slope = Number(/^sigmoid:(.+)$/m.exec(parameters.join('\n'))?.[1] ?? 1);
  if (!(slope > 0)) throw broken(`its objective is "${text}"`);
  if (parameters.includes('sqrt')) return { objective, link: { kind: 'signed-square' } };
  return { objective, link: create(slope) };
}

/**
 * Columns of pandas' type category have their values in the last line, in the order of the columns; which columns
 * those are, the parameters say. By feature.
 */
function categoriesOf(tail: string, featureCount: number): readonly TreeFeature['categories'][] {
  const text = /^pandas_categorical:(.*)$/m.exec(tail)?.[1]?.trim() ?? 'null';
  const lists = toJson(text);
  if (!Array.isArray(lists) || lists.length === 0) return [];
  const columns = (/^\[categorical_feature: (.*)\]$/m.exec(tail)?.[1] ?? '')
    .split(',')
    .filter((column) => column !== '')
    .map(Number);
  const isCategory = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);
  const isUsable = lists.every((list: unknown) => Array.isArray(list) && list.every(isCategory));
  if (!isUsable || columns.length !== lists.length || columns.some((column) => !(column < featureCount))) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The model has ${lists.length} columns of categories from pandas, and names ${columns.length} categorical features; which belong together is not in the file. Log the model with MLflow and register it with --engine python.`,
      { details: { isUnsupported: true } },
    );
  }
  const byFeature: TreeFeature['categories'][] = [];
  columns.forEach((column, index) => {
    byFeature[column] = lists[index] as (string | number | boolean)[];
  });
  return byFeature;
}

function toJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw broken(`its line \`pandas_categorical\` is ${text.slice(0, 60)}`);
  }
}

export function broken(reason: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The model is not a whole text file of LightGBM: ${reason}. Save it again, for example with booster.save_model("model.txt").`,
  );
}
