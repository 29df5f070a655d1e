// One tree in LightGBM's text: lists of numbers by line, inner nodes and leaves counted apart. Leaves may be lines
// (linear_tree) in place of numbers.
import { brokenTree, type LinearLeaf, type TreeNode } from './forest.ts';

const CATEGORICAL = 1;
const DEFAULT_LEFT = 2;
const MISSING = ['none', 'zero', 'nan'] as const;

/** Inner nodes come first, then leaves; a child below zero is leaf -1 - child. */
export function readTree(lines: ReadonlyMap<string, string>, tree: number): TreeNode[] {
  const listOf = (name: string, count?: number): number[] => {
    const text = lines.get(name) ?? '';
    const list = text === '' ? [] : text.split(/ +/).map(toNumber);
    if (count !== undefined && list.length !== count) {
      throw brokenTree(tree, `\`${name}\` has ${list.length} values, not ${count}`);
    }
    if (list.includes(undefined)) throw brokenTree(tree, `\`${name}\` is no list of numbers`);
    return list as number[];
  };
  const leafCount = Number(lines.get('num_leaves'));
  if (!Number.isSafeInteger(leafCount) || leafCount < 1) {
    throw brokenTree(tree, `\`num_leaves\` is ${JSON.stringify(lines.get('num_leaves')) ?? 'missing'}`);
  }
  const values = listOf('leaf_value', leafCount);
  const linear = readLines(lines, listOf, leafCount, tree);
  const leaves = values.map(
    (value, leaf): TreeNode => ({
      kind: 'leaf',
      values: [value],
      ...(linear[leaf] === undefined ? {} : { linear: linear[leaf] }),
    }),
  );
  const count = leafCount - 1;
  if (count === 0) return leaves;
  const features = listOf('split_feature', count);
  const thresholds = listOf('threshold', count);
  const types = listOf('decision_type', count);
  const lefts = listOf('left_child', count);
  const rights = listOf('right_child', count);
  const starts = listOf('cat_boundaries');
  const words = listOf('cat_threshold');
  const nodeOf = (child: number) => (child < 0 ? count - 1 - child : child);

  const splits = Array.from({ length: count }, (_, node): TreeNode => {
    const feature = features[node] ?? 0;
    const threshold = thresholds[node] ?? 0;
    const type = types[node] ?? 0;
    const left = nodeOf(lefts[node] ?? 0);
    const right = nodeOf(rights[node] ?? 0);
    if (type & CATEGORICAL) {
      const [start, end] = [starts[threshold], starts[threshold + 1]];
      if (start === undefined || end === undefined || end < start || end > words.length) {
        throw brokenTree(tree, `node ${node} has set of categories ${threshold}, which is not in the file`);
      }
      // A missing category is in no set.
      const set = Uint32Array.from(words.slice(start, end));
      return { kind: 'category', feature, set, inside: left, outside: right, missingIsInside: false };
    }
    const missing = MISSING[(type >> 2) & 3];
    if (missing === undefined) throw brokenTree(tree, `node ${node} has the decision type ${type}`);
    const missingGoesLeft = (type & DEFAULT_LEFT) !== 0;
    return { kind: 'number', feature, threshold, test: 'atMost', missing, missingGoesLeft, left, right };
  });
  return [...splits, ...leaves];
}

/** As C writes numbers: with `nan` and `inf`. */
function toNumber(text: string): number | undefined {
  const number = Number(text);
  if (!Number.isNaN(number)) return number;
  if (/^-?nan$/i.test(text)) return Number.NaN;
  const sign = /^([+-]?)inf(inity)?$/i.exec(text)?.[1];
  return sign === undefined ? undefined : sign === '-' ? -Infinity : Infinity;
}

/** Leaves that are lines, by leaf; features and coefficients of all leaves stand in one row each. */
function readLines(
  lines: ReadonlyMap<string, string>,
  listOf: (name: string, count?: number) => number[],
  leafCount: number,
  tree: number,
): readonly LinearLeaf[] {
  if (lines.get('is_linear') !== '1') return [];
  const constants = listOf('leaf_const', leafCount);
  const counts = listOf('num_features', leafCount);
  const features = listOf('leaf_features');
  const coefficients = listOf('leaf_coeff');
  let at = 0;
  const leaves = counts.map((count, leaf): LinearLeaf => {
    const start = at;
    at += count;
    return {
      constant: constants[leaf] ?? 0,
      features: features.slice(start, at),
      coefficients: coefficients.slice(start, at),
    };
  });
  if (at !== features.length || at !== coefficients.length) {
    throw brokenTree(tree, `its leaves take ${at} features, and the file has ${features.length}`);
  }
  return leaves;
}
