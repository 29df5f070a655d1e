// Trains the penguin species model of examples/penguins: gradient-boosted trees in plain TypeScript, written
// as an ONNX file that any ONNX runtime can read. Not a training library: one data set, one recipe, one seed.
// Run: node --import tsx scripts/train-penguins.ts
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;

const SEED = 20_07_03;
const TEST_SHARE = 0.25;
const ROUNDS = 15;
const MAX_DEPTH = 3;
const MIN_LEAF_ROWS = 4;
const LEARNING_RATE = 0.3;
const LEAF_PENALTY = 1;
const FEATURES = ['bill_length_mm', 'bill_depth_mm', 'flipper_length_mm', 'body_mass_g'] as const;
const SPECIES = ['Adelie', 'Chinstrap', 'Gentoo'] as const;

interface Penguin {
  readonly features: readonly number[];
  /** Index into SPECIES. */
  readonly label: number;
  readonly split: 'train' | 'test';
}

interface Leaf {
  readonly weight: number;
}
interface Branch {
  readonly feature: number;
  /** Rows with a value of at most this go left. Representable as float32, which is what the file holds. */
  readonly threshold: number;
  readonly missingGoesLeft: boolean;
  readonly left: Tree;
  readonly right: Tree;
}
type Tree = Leaf | Branch;

/** Uniform numbers in [0, 1) from a seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The rows that have all four measurements, with a split drawn by species so that both parts have the same mix. */
function readPenguins(): Penguin[] {
  // The package exports its code only, so its data file is read by path.
  const file = new URL('../node_modules/vega-datasets/data/penguins.json', import.meta.url);
  const text = readFileSync(file, 'utf8');
  const rows: Record<string, string | number | null>[] = JSON.parse(text);
  const columns = ['Beak Length (mm)', 'Beak Depth (mm)', 'Flipper Length (mm)', 'Body Mass (g)'];
  const complete = rows.filter((row) => columns.every((column) => typeof row[column] === 'number'));
  const random = randomFrom(SEED);
  const order = complete.map((_, index) => index);
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other] ?? 0, order[last] ?? 0];
  }
  const testRows = new Set<number>();
  for (const species of SPECIES) {
    const members = order.filter((index) => complete[index]?.Species === species);
    for (const index of members.slice(0, Math.round(members.length * TEST_SHARE))) testRows.add(index);
  }
  return complete.map((row, index) => ({
    features: columns.map((column) => Number(row[column])),
    label: SPECIES.indexOf(row.Species as (typeof SPECIES)[number]),
    split: testRows.has(index) ? 'test' : 'train',
  }));
}

function growTree(
  rows: readonly Penguin[],
  gradients: readonly number[],
  hessians: readonly number[],
  members: readonly number[],
  depth: number,
): Tree {
  const sum = (values: readonly number[], of: readonly number[]) =>
    of.reduce((total, index) => total + (values[index] ?? 0), 0);
  const gradient = sum(gradients, members);
  const hessian = sum(hessians, members);
  const score = (g: number, h: number) => (g * g) / (h + LEAF_PENALTY);
  const leaf: Leaf = { weight: (-LEARNING_RATE * gradient) / (hessian + LEAF_PENALTY) };
  if (depth === MAX_DEPTH) return leaf;

  let best: { gain: number; feature: number; threshold: number } | undefined;
  for (const [feature] of FEATURES.entries()) {
    const value = (index: number) => rows[index]?.features[feature] ?? Number.NaN;
    const sorted = [...members].sort((left, right) => value(left) - value(right));
    let leftGradient = 0;
    let leftHessian = 0;
    for (const [position, index] of sorted.entries()) {
      leftGradient += gradients[index] ?? 0;
      leftHessian += hessians[index] ?? 0;
      const next = sorted[position + 1];
      if (next === undefined || value(next) === value(index)) continue;
      if (position + 1 < MIN_LEAF_ROWS || sorted.length - position - 1 < MIN_LEAF_ROWS) continue;
      const gain =
        score(leftGradient, leftHessian) +
        score(gradient - leftGradient, hessian - leftHessian) -
        score(gradient, hessian);
      if (gain > (best?.gain ?? 1e-9)) {
        best = { gain, feature, threshold: Math.fround((value(index) + value(next)) / 2) };
      }
    }
  }
  if (best === undefined) return leaf;
  const { feature, threshold } = best;
  const goesLeft = (index: number) => (rows[index]?.features[feature] ?? 0) <= threshold;
  const left = members.filter(goesLeft);
  const right = members.filter((index) => !goesLeft(index));
  return {
    feature,
    threshold,
    missingGoesLeft: left.length >= right.length,
    left: growTree(rows, gradients, hessians, left, depth + 1),
    right: growTree(rows, gradients, hessians, right, depth + 1),
  };
}

function treeScore(tree: Tree, features: readonly number[]): number {
  if ('weight' in tree) return tree.weight;
  const value = features[tree.feature] ?? Number.NaN;
  const goesLeft = Number.isNaN(value) ? tree.missingGoesLeft : value <= tree.threshold;
  return treeScore(goesLeft ? tree.left : tree.right, features);
}

function softmax(scores: readonly number[]): number[] {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** One tree per class and round, each a Newton step on the log loss. */
function train(rows: readonly Penguin[]): Tree[][] {
  const rounds: Tree[][] = [];
  const scores = rows.map(() => SPECIES.map(() => 0));
  const members = rows.map((_, index) => index);
  for (let round = 0; round < ROUNDS; round++) {
    const probabilities = scores.map(softmax);
    const trees = SPECIES.map((_, label) => {
      const share = (index: number) => probabilities[index]?.[label] ?? 0;
      const gradients = rows.map((row, index) => share(index) - (row.label === label ? 1 : 0));
      const hessians = rows.map((_row, index) => Math.max(share(index) * (1 - share(index)), 1e-6));
      return growTree(rows, gradients, hessians, members, 0);
    });
    for (const [index, row] of rows.entries()) {
      scores[index] = trees.map(
        (tree, label) => (scores[index]?.[label] ?? 0) + treeScore(tree, row.features),
      );
    }
    rounds.push(trees);
  }
  return rounds;
}

function predictLabel(rounds: readonly Tree[][], features: readonly number[]): number {
  const scores = SPECIES.map((_, label) =>
    rounds.reduce((sum, trees) => sum + treeScore(trees[label] ?? { weight: 0 }, features), 0),
  );
  return scores.indexOf(Math.max(...scores));
}

/** The attributes of ai.onnx.ml TreeEnsembleClassifier: all nodes of all trees in parallel lists. */
function treeAttributes(rounds: readonly Tree[][]): onnxProto.onnx.IAttributeProto[] {
  const nodes = {
    treeIds: [] as number[],
    nodeIds: [] as number[],
    features: [] as number[],
    values: [] as number[],
    modes: [] as string[],
    trueIds: [] as number[],
    falseIds: [] as number[],
    missing: [] as number[],
  };
  const leaves = {
    treeIds: [] as number[],
    nodeIds: [] as number[],
    labels: [] as number[],
    weights: [] as number[],
  };
  let treeId = 0;
  for (const trees of rounds) {
    for (const [label, tree] of trees.entries()) {
      let nextId = 0;
      const add = (node: Tree): number => {
        const id = nextId++;
        const at = nodes.treeIds.length;
        const isLeaf = 'weight' in node;
        nodes.treeIds.push(treeId);
        nodes.nodeIds.push(id);
        nodes.features.push(isLeaf ? 0 : node.feature);
        nodes.values.push(isLeaf ? 0 : node.threshold);
        nodes.modes.push(isLeaf ? 'LEAF' : 'BRANCH_LEQ');
        nodes.missing.push(!isLeaf && node.missingGoesLeft ? 1 : 0);
        nodes.trueIds.push(0);
        nodes.falseIds.push(0);
        if (isLeaf) {
          leaves.treeIds.push(treeId);
          leaves.nodeIds.push(id);
          leaves.labels.push(label);
          leaves.weights.push(node.weight);
        } else {
          nodes.trueIds[at] = add(node.left);
          nodes.falseIds[at] = add(node.right);
        }
        return id;
      };
      add(tree);
      treeId++;
    }
  }
  const { AttributeType } = onnx.AttributeProto;
  const bytes = (text: string) => new TextEncoder().encode(text);
  const ints = (name: string, values: number[]) => ({ name, type: AttributeType.INTS, ints: values });
  const floats = (name: string, values: number[]) => ({ name, type: AttributeType.FLOATS, floats: values });
  const strings = (name: string, values: readonly string[]) => ({
    name,
    type: AttributeType.STRINGS,
    strings: values.map(bytes),
  });
  return [
    ints('nodes_treeids', nodes.treeIds),
    ints('nodes_nodeids', nodes.nodeIds),
    ints('nodes_featureids', nodes.features),
    floats('nodes_values', nodes.values),
    strings('nodes_modes', nodes.modes),
    ints('nodes_truenodeids', nodes.trueIds),
    ints('nodes_falsenodeids', nodes.falseIds),
    ints('nodes_missing_value_tracks_true', nodes.missing),
    ints('class_treeids', leaves.treeIds),
    ints('class_nodeids', leaves.nodeIds),
    ints('class_ids', leaves.labels),
    floats('class_weights', leaves.weights),
    strings('classlabels_strings', SPECIES),
    { name: 'post_transform', type: AttributeType.STRING, s: bytes('SOFTMAX') },
  ];
}

function toOnnx(rounds: readonly Tree[][]): Uint8Array {
  const { DataType } = onnx.TensorProto;
  const tensor = (name: string, elemType: number, width: number | null): onnxProto.onnx.IValueInfoProto => ({
    name,
    type: {
      tensorType: {
        elemType,
        shape: { dim: [{ dimParam: 'N' }, ...(width === null ? [] : [{ dimValue: width }])] },
      },
    },
  });
  const model = onnx.ModelProto.create({
    irVersion: 8,
    producerName: 'duckserve train-penguins',
    docString: 'Species of a Palmer penguin from four measurements. Data: CC0, Gorman et al. 2014.',
    opsetImport: [
      { domain: '', version: 17 },
      { domain: 'ai.onnx.ml', version: 1 },
    ],
    graph: {
      name: 'penguins',
      node: [
        {
          opType: 'TreeEnsembleClassifier',
          domain: 'ai.onnx.ml',
          input: ['features'],
          output: ['species', 'probabilities'],
          attribute: treeAttributes(rounds),
        },
      ],
      input: [tensor('features', DataType.DOUBLE, FEATURES.length)],
      output: [
        tensor('species', DataType.STRING, null),
        tensor('probabilities', DataType.FLOAT, SPECIES.length),
      ],
    },
  });
  return onnx.ModelProto.encode(model).finish();
}

const penguins = readPenguins();
const trainRows = penguins.filter(({ split }) => split === 'train');
const rounds = train(trainRows);
const accuracy = (rows: readonly Penguin[]) =>
  rows.filter(({ features, label }) => predictLabel(rounds, features) === label).length / rows.length;

const folder = new URL('../examples/penguins/', import.meta.url);
mkdirSync(folder, { recursive: true });
const model = toOnnx(rounds);
writeFileSync(new URL('penguins.onnx', folder), model);
const signature = {
  inputs: FEATURES.map((name) => ({ name, type: 'double', required: true })),
  outputs: [{ name: 'species', type: 'string', required: true }],
};
writeFileSync(new URL('signature.json', folder), `${JSON.stringify(signature, null, 2)}\n`);
const lines = penguins.map(({ features, label, split }) => [...features, SPECIES[label], split].join(','));
writeFileSync(
  new URL('penguins.csv', folder),
  `${[[...FEATURES, 'species', 'split'].join(','), ...lines].join('\n')}\n`,
);

const testRows = penguins.filter(({ split }) => split === 'test');
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
process.stdout.write(
  `${trainRows.length} training rows: ${percent(accuracy(trainRows))} right; ` +
    `${testRows.length} test rows: ${percent(accuracy(testRows))} right; penguins.onnx ${model.length} bytes\n`,
);
