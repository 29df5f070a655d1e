// Trees against the libraries that grew them: the recorded predictions of XGBoost and LightGBM for small models
// (made by fixtures/trees/make_fixtures.py), and the walk of the flat arrays against a walk node by node.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { after, ForestBuilder, type TreeNode } from '#engines/trees/forest.ts';
import { parseLightgbm } from '#engines/trees/lightgbm.ts';
import { Predictor, type PredictorOptions } from '#engines/trees/predictor.ts';
import type { TreeModel } from '#engines/trees/tree-model.ts';
import { Walker } from '#engines/trees/walk.ts';
import { parseXgboost } from '#engines/trees/xgboost.ts';

type Cell = number | string | null;
interface Case {
  readonly rows?: readonly Cell[][];
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly raw: readonly number[];
  readonly classes?: readonly number[];
}

const FOLDER = new URL('./fixtures/trees/', import.meta.url);
const { X, ...CASES } = JSON.parse(readFileSync(new URL('expected.json', FOLDER), 'utf8')) as {
  X: readonly Cell[][];
  [name: string]: Case | readonly Cell[][];
};

function load(name: string): TreeModel {
  const bytes = readFileSync(new URL(name, FOLDER));
  return name.endsWith('.txt') ? parseLightgbm(bytes) : parseXgboost(bytes);
}

function predict(model: TreeModel, rows: readonly Cell[][], options: Partial<PredictorOptions> = {}) {
  const columns = model.features.map(({ categories }, feature) =>
    Float64Array.from(rows, (row) => {
      const cell = row[feature] ?? null;
      if (cell === null) return Number.NaN;
      return typeof cell === 'string' ? (categories ?? []).indexOf(cell) : cell;
    }),
  );
  const predictor = new Predictor(model, { predicts: 'values', usesBestIteration: false, ...options });
  return { width: predictor.width, values: [...predictor.predict(columns, rows.length)].flat() as number[] };
}

/** To the last digits that were recorded: relative to what is larger than 1. */
function expectClose(actual: readonly number[], expected: readonly number[]) {
  expect(actual).toHaveLength(expected.length);
  const worst = actual.map((value, index) => {
    const wanted = expected[index] ?? Number.NaN;
    return Math.abs(value - wanted) / Math.max(1, Math.abs(wanted));
  });
  expect(Math.max(...worst)).toBeLessThan(2e-7);
}

const cases = Object.entries(CASES) as [string, Case][];

describe.each(cases)('%s', (name, { rows = X, shape, values, raw }) => {
  const model = load(name);
  test('predicts what its library predicts', () => {
    const found = predict(model, rows);
    expectClose(found.values, values);
    expect(found.width).toBe(shape[1] ?? 1);
  });
  test('has the raw sums of its library', () => {
    expectClose(predict(model, rows, { predicts: 'raw' }).values, raw);
  });
});

test.each(cases.filter(([, { classes }]) => classes !== undefined))(
  '%s has the classes of the interface of scikit-learn',
  (name, { rows = X, classes }) => {
    const found = predict(load(name), rows, { predicts: 'classes', usesBestIteration: true });
    expect(found).toEqual({ width: 1, values: classes });
  },
);

test('the recorded cases have all that the files can say: boosters, categories, missing values, lines, forests', () => {
  const names = cases.map(([name]) => name).join(' ');
  for (const word of [
    'dart',
    'linear',
    'categories',
    'one-hot',
    'vector-leaf',
    'forest',
    'early-stop',
    'rf',
    'pandas',
  ])
    expect(names).toContain(word);
  expect(cases.length).toBeGreaterThan(25);
});

test('early stopping leaves out the trees after the best round, where that is asked for', () => {
  const model = load('xgb-early-stop.ubj');
  expect(model.bestTreeCount).toBeLessThan(model.forest.roots.length);
  const all = predict(model, X).values;
  expect(predict(model, X, { usesBestIteration: true }).values).not.toEqual(all);
});

test('classes have the names that were given for them', () => {
  const { values } = predict(load('xgb-classifier.ubj'), X, { predicts: 'classes', labels: ['no', 'yes'] });
  expect(new Set(values)).toEqual(new Set(['no', 'yes']));
});

test('a category above all sets of a split goes where strangers go', () => {
  const model = load('lgb-codes.txt');
  const [known = [], ...rest] = (CASES['lgb-codes.txt'] as Case).rows ?? [];
  expect(rest.length).toBeGreaterThan(1);
  const row = (code: number) => [known[0] ?? null, code, known[2] ?? null];
  const missing = [known[0] ?? null, null, known[2] ?? null];
  const { values } = predict(model, [row(1e9), row(-5), row(4_294_967_297), missing]);
  expect(new Set(values).size).toBe(1);
});

describe('the walk through flat arrays', () => {
  const FEATURES = 5;
  const number = fc.oneof(
    fc.double({ noDefaultInfinity: true, min: -3, max: 3 }),
    fc.constantFrom(0, -0, 1, -1, 2, 1e-36, -1e-36, Number.NaN),
  );
  type Split = {
    feature: number;
    threshold: number;
    test: 'less' | 'atMost';
    missing: 'nan' | 'zero' | 'none';
    missingGoesLeft: boolean;
    set: number | null;
    missingIsInside: boolean;
  };
  const split: fc.Arbitrary<Split> = fc.record({
    feature: fc.integer({ min: 0, max: FEATURES - 1 }),
    threshold: number.filter((value) => !Number.isNaN(value)),
    test: fc.constantFrom('less', 'atMost'),
    missing: fc.constantFrom('nan', 'zero', 'none'),
    missingGoesLeft: fc.boolean(),
    set: fc.option(fc.integer({ min: 0, max: 255 }), { freq: 4 }),
    missingIsInside: fc.boolean(),
  });

  /** A tree that grows leaf by leaf: split n replaces the leaf at place `grow % leaves`. */
  const tree = fc.array(fc.tuple(split, fc.nat()), { maxLength: 12 }).map((splits) => {
    const nodes: TreeNode[] = [{ kind: 'leaf', values: [0] }];
    for (const [{ set, missingIsInside, ...rest }, grow] of splits) {
      const leaves = nodes.flatMap((node, index) => (node.kind === 'leaf' ? [index] : []));
      const at = leaves[grow % leaves.length] ?? 0;
      const left = nodes.length;
      nodes.push({ kind: 'leaf', values: [left] }, { kind: 'leaf', values: [left + 1] });
      nodes[at] =
        set === null
          ? { kind: 'number', ...rest, left, right: left + 1 }
          : {
              kind: 'category',
              feature: rest.feature,
              set: Uint32Array.of(set),
              inside: left,
              outside: left + 1,
              missingIsInside,
            };
    }
    return nodes;
  });

  function leafOf(nodes: readonly TreeNode[], row: readonly number[]): number {
    for (let at = 0; ; ) {
      const node = nodes[at];
      if (node === undefined) throw new Error('no such node');
      if (node.kind === 'leaf') return node.values[0] ?? Number.NaN;
      const value = row[node.feature] ?? Number.NaN;
      if (node.kind === 'category') {
        const isInside = Number.isNaN(value)
          ? node.missingIsInside
          : Math.trunc(value) >= 0 && value < 32 && (((node.set[0] ?? 0) >>> Math.trunc(value)) & 1) === 1;
        at = isInside ? node.inside : node.outside;
        continue;
      }
      const read = Number.isNaN(value) && node.missing !== 'nan' ? 0 : value;
      const isMissing =
        node.missing === 'nan' ? Number.isNaN(value) : node.missing === 'zero' && Math.abs(read) <= 1e-35;
      const isLeft = isMissing
        ? node.missingGoesLeft
        : node.test === 'less'
          ? read < node.threshold
          : read <= node.threshold;
      at = isLeft ? node.left : node.right;
    }
  }

  test('ends in the leaf that the rules of the nodes lead to, for any trees, rows and missing values', () => {
    const row = fc.array(number, { minLength: FEATURES, maxLength: FEATURES });
    fc.assert(
      fc.property(
        fc.array(tree, { minLength: 1, maxLength: 4 }),
        fc.array(row, { maxLength: 23 }),
        (trees, rows) => {
          const builder = new ForestBuilder(FEATURES);
          for (const nodes of trees) builder.add(nodes, 0);
          const columns = Array.from({ length: FEATURES }, (_, feature) =>
            Float64Array.from(rows, (cells) => cells[feature] ?? Number.NaN),
          );
          const sums = new Float64Array(rows.length);
          new Walker(builder.build(), 1, false).add(columns, rows.length, sums);
          const expected = rows.map((cells) => trees.reduce((sum, nodes) => sum + leafOf(nodes, cells), 0));
          expect([...sums]).toEqual(expected);
        },
      ),
    );
  });

  test('gives each row the same answer alone and among a thousand', () => {
    const model = load('lgb-multiclass.txt');
    const rows = Array.from({ length: 1003 }, (_, index) => X[index % X.length] ?? []);
    const { values } = predict(model, rows);
    const alone = X.map((row) => predict(model, [row]).values);
    expect(values).toEqual(rows.flatMap((_, index) => alone[index % X.length] ?? []));
  });

  test('the next double after a number is larger, and nothing is between', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, max: 1e308 }), (value) => {
        const next = after(value);
        if (value === Number.NEGATIVE_INFINITY) return;
        expect(next).toBeGreaterThan(value);
        const middle = value / 2 + next / 2;
        expect(middle <= value || middle >= next).toBe(true);
      }),
    );
  });
});
