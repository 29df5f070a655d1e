// The trees in a booster of XGBoost (gbtree and dart), one array a member, as nodes of a forest.
import type { Place } from './document.ts';
import { brokenTree, type Forest, ForestBuilder, type TreeNode } from './forest.ts';

/** A left child of -1 makes a leaf. */
const NONE = -1;
/** `split_type` of a split by categories. */
const CATEGORICAL = 1;
/** More categories than a file can mean: float32 counts no further. */
const MAX_CATEGORIES = 2 ** 24;
/** Words of all sets of one tree: one node with the largest category takes 2 ** 19. */
const MAX_SET_WORDS = 2 ** 22;

interface XgboostTrees {
  readonly forest: Forest;
  /** Trees of the first `rounds` rounds. */
  treesUpTo(rounds: number): number;
}

export function addXgboostTrees(booster: Place, featureCount: number, outputs: number): XgboostTrees {
  const isDart = booster.at('name').value === 'dart';
  const model = isDart ? booster.at('gbtree').at('model') : booster.at('model');
  const trees = model.at('trees').list();
  const groups = model.at('tree_info').numbers(trees.length);
  const weights = isDart ? booster.at('weight_drop').numbers(trees.length) : [];
  const [first] = trees;
  const width = first === undefined ? 1 : Math.max(1, first.at('tree_param').at('size_leaf_vector').count(1));
  if (width !== 1 && width !== outputs)
    throw first!.at('tree_param').at('size_leaf_vector').wrong(`1 or ${outputs}`);
  const builder = new ForestBuilder(featureCount, width);
  for (const [index, tree] of trees.entries()) {
    const group = width === 1 ? (groups[index] ?? 0) : 0;
    if (!(group >= 0 && group < outputs)) throw brokenTree(index, `it adds to output ${group} of ${outputs}`);
    builder.add(readTree(tree, index, width, weights[index] ?? 1), group);
  }
  const parameters = model.at('gbtree_model_param');
  const perRound = Math.max(1, parameters.at('num_parallel_tree').count(1)) * (width === 1 ? outputs : 1);
  const ends = model.at('iteration_indptr').isPresent ? model.at('iteration_indptr').numbers() : undefined;
  return {
    forest: builder.build(),
    treesUpTo: (rounds) => Math.min(trees.length, ends?.[rounds] ?? rounds * perRound),
  };
}

function readTree(tree: Place, index: number, width: number, weight: number): TreeNode[] {
  const lefts = tree.at('left_children').numbers();
  const count = lefts.length;
  if (count === 0) throw brokenTree(index, 'it has no nodes');
  const rights = tree.at('right_children').numbers(count);
  const features = tree.at('split_indices').numbers(count);
  const conditions = tree.at('split_conditions').numbers(count);
  const defaults = tree.at('default_left').numbers(count);
  const types = tree.at('split_type').isPresent ? tree.at('split_type').numbers(count) : [];
  const vectors = width === 1 ? undefined : leafVectors(tree, count, width);
  const sets = readSets(tree, index);
  const weigh = (value: number) => Math.fround(Math.fround(weight) * Math.fround(value));

  return Array.from({ length: count }, (_, node): TreeNode => {
    const left = lefts[node] ?? NONE;
    const right = rights[node] ?? NONE;
    if (left === NONE) {
      const values = vectors?.(node, right) ?? [conditions[node] ?? 0];
      return { kind: 'leaf', values: Array.from(values, weigh) };
    }
    const feature = features[node] ?? 0;
    const missingGoesLeft = Boolean(defaults[node]);
    if (types[node] === CATEGORICAL) {
      const set = sets.get(node);
      if (set === undefined) throw brokenTree(index, `node ${node} splits by categories and has none`);
      return {
        kind: 'category',
        feature,
        set,
        inside: right,
        outside: left,
        missingIsInside: !missingGoesLeft,
      };
    }
    const threshold = Math.fround(conditions[node] ?? 0);
    return { kind: 'number', feature, threshold, test: 'less', missing: 'nan', missingGoesLeft, left, right };
  });
}

/** Since 3.1 in a list of their own, by the number that stands in place of the right child; before that by node. */
function leafVectors(tree: Place, count: number, width: number) {
  const own = tree.at('leaf_weights');
  const values = own.isPresent ? own.numbers() : tree.at('base_weights').numbers(count * width);
  return (node: number, leaf: number): number[] => {
    const start = (own.isPresent ? leaf : node) * width;
    if (!(start >= 0 && start + width <= values.length)) throw own.wrong(`a value for leaf ${leaf}`);
    return Array.from({ length: width }, (_, output) => values[start + output] ?? 0);
  };
}

/** By node: which categories go right. */
function readSets(tree: Place, index: number): ReadonlyMap<number, Uint32Array> {
  const sets = new Map<number, Uint32Array>();
  if (!tree.at('categories_nodes').isPresent) return sets;
  const nodes = tree.at('categories_nodes').numbers();
  const starts = tree.at('categories_segments').numbers(nodes.length);
  const sizes = tree.at('categories_sizes').numbers(nodes.length);
  const all = tree.at('categories').numbers();
  let words = 0;
  for (let at = 0; at < nodes.length; at++) {
    const start = starts[at] ?? 0;
    const size = Math.min(sizes[at] ?? 0, all.length + 1);
    const members = Array.from({ length: size }, (_, offset) => all[start + offset] ?? NONE);
    const most = members.reduce((left, right) => Math.max(left, right), 0);
    if (members.some((member) => !(member >= 0 && member < MAX_CATEGORIES))) {
      throw brokenTree(index, `node ${nodes[at]} has a set of categories that is not in the file`);
    }
    words += Math.floor(most / 32) + 1;
    if (words > MAX_SET_WORDS)
      throw brokenTree(index, 'its sets of categories take more room than a model needs');
    const set = new Uint32Array(Math.floor(most / 32) + 1);
    for (const member of members) {
      const word = Math.floor(member / 32);
      set[word] = (set[word] ?? 0) | (1 << (member % 32));
    }
    sets.set(nodes[at] ?? NONE, set);
  }
  return sets;
}
