// Walks rows through the trees of a forest and adds up what their leaves say. The hot loop of the engine: rows in
// blocks that stay in the cache, tree after tree, four rows side by side. Base scores and links are not added here.
import {
  type Forest,
  MISSING_FOR_ZERO,
  MISSING_FOR_ZERO_NEGATED,
  NEGATED,
  ZERO_FOR_MISSING,
} from './forest.ts';

/** Values of one feature by row, NaN where missing. */
export type FeatureValues = Float64Array;

/** LightGBM takes this and what is nearer to zero for zero. */
const ZERO_THRESHOLD = Math.fround(1e-35);
const BLOCK_ROWS = 256;
/** From a cell to the next one of the same row. Not a power of two: those meet in the same lines of the cache. */
const STRIDE = BLOCK_ROWS + 8;
const LANES = 4;
/** Splits that are taken before it is looked whether all lanes have come to a leaf. */
const STEPS = 8;

export class Walker {
  readonly #forest: Forest;
  readonly #treeCount: number;
  readonly #outputs: number;
  /** Values and sums in float32, as XGBoost has them. */
  readonly #isSingle: boolean;
  /** Cell by cell, the rows of a block one after the other. */
  readonly #block: Float64Array;
  /** By node: where its cell begins in the block. */
  readonly #places: Int32Array;
  readonly #ends = new Int32Array(BLOCK_ROWS);

  /** Only the first `treeCount` trees count. */
  constructor(forest: Forest, outputs: number, isSingle: boolean, treeCount = forest.roots.length) {
    this.#forest = forest;
    this.#treeCount = treeCount;
    this.#outputs = outputs;
    this.#isSingle = isSingle;
    this.#block = new Float64Array(forest.cellFeatures.length * STRIDE);
    this.#places = forest.cells.map((cell) => cell * STRIDE);
  }

  /** Adds to `sums`, which has `outputs` values a row. `features` has one entry for each feature of the model. */
  add(features: readonly FeatureValues[], rowCount: number, sums: Float64Array): void {
    for (let start = 0; start < rowCount; start += BLOCK_ROWS) {
      const count = Math.min(BLOCK_ROWS, rowCount - start);
      this.#fill(features, start, count);
      for (let tree = 0; tree < this.#treeCount; tree++) {
        if (this.#forest.hasSets[tree]) this.#walkSets(tree, count);
        else this.#walk(tree, count);
        this.#collect(tree, start, count, sums);
      }
    }
  }

  #fill(features: readonly FeatureValues[], start: number, count: number): void {
    const { cellFeatures, cellKinds } = this.#forest;
    const block = this.#block;
    for (let cell = 0; cell < cellFeatures.length; cell++) {
      const values = features[cellFeatures[cell]!]!;
      const kind = cellKinds[cell]!;
      for (let row = 0, at = cell * STRIDE; row < count; row++, at++) {
        let value = values[start + row]!;
        if (this.#isSingle) value = Math.fround(value);
        if (kind === NEGATED) value = -value;
        else if (kind === ZERO_FOR_MISSING) value = Number.isNaN(value) ? 0 : value;
        else if (kind === MISSING_FOR_ZERO || kind === MISSING_FOR_ZERO_NEGATED) {
          if (Math.abs(value) <= ZERO_THRESHOLD) value = Number.NaN;
          else if (kind === MISSING_FOR_ZERO_NEGATED) value = -value;
        }
        block[at] = value;
      }
    }
  }

  /** Where each row of the block ends in a tree without sets of categories. */
  #walk(tree: number, count: number): void {
    const { thresholds, next, roots, depths } = this.#forest;
    const places = this.#places;
    const block = this.#block;
    const ends = this.#ends;
    const root = roots[tree]!;
    const depth = depths[tree]!;
    let row = 0;
    // Each lane waits for memory by itself, so several of them keep the processor busy. A leaf is its own next:
    // lanes that are there early stay there.
    for (; row + LANES <= count; row += LANES) {
      const row1 = row + 1;
      const row2 = row + 2;
      const row3 = row + 3;
      let n0 = root;
      let n1 = root;
      let n2 = root;
      let n3 = root;
      let left = depth;
      while (left > 0) {
        for (let steps = Math.min(left, STEPS); steps > 0; steps--) {
          n0 = (next[n0]! + +(block[row + places[n0]!]! < thresholds[n0]!)) | 0;
          n1 = (next[n1]! + +(block[row1 + places[n1]!]! < thresholds[n1]!)) | 0;
          n2 = (next[n2]! + +(block[row2 + places[n2]!]! < thresholds[n2]!)) | 0;
          n3 = (next[n3]! + +(block[row3 + places[n3]!]! < thresholds[n3]!)) | 0;
        }
        left -= STEPS;
        if (left > 0 && next[n0] === n0 && next[n1] === n1 && next[n2] === n2 && next[n3] === n3) break;
      }
      ends[row] = n0;
      ends[row1] = n1;
      ends[row2] = n2;
      ends[row3] = n3;
    }
    for (; row < count; row++) {
      let node = -1;
      let child = root;
      while (child !== node) {
        node = child;
        child = next[node]! + +(block[row + places[node]!]! < thresholds[node]!);
      }
      ends[row] = node;
    }
  }

  /** The same with sets of categories. */
  #walkSets(tree: number, count: number): void {
    const { thresholds, next, roots, sets, setStarts, setWords, setTakesMissing } = this.#forest;
    for (let row = 0; row < count; row++) {
      let node = -1;
      let child = roots[tree]!;
      while (child !== node) {
        node = child;
        const value = this.#block[row + this.#places[node]!]!;
        const set = sets[node]!;
        let isYes = value < thresholds[node]!;
        if (set >= 0 && Number.isNaN(value)) isYes = setTakesMissing[set] === 1;
        else if (set >= 0) {
          const start = setStarts[set]!;
          const category = Math.trunc(value);
          const word = Math.floor(category / 32);
          isYes =
            category >= 0 &&
            word < setStarts[set + 1]! - start &&
            ((setWords[start + word]! >>> (category % 32)) & 1) === 1;
        }
        child = next[node]! + +isYes;
      }
      this.#ends[row] = node;
    }
  }

  #collect(tree: number, start: number, count: number, sums: Float64Array): void {
    const { values, leafValues, leafWidth, groups, linear } = this.#forest;
    const outputs = this.#outputs;
    const ends = this.#ends;
    const isSingle = this.#isSingle;
    if (linear.size > 0) {
      for (let row = 0; row < count; row++) sums[(start + row) * outputs + groups[tree]!]! += this.#line(row);
      return;
    }
    for (let output = 0; output < leafWidth; output++) {
      for (let row = 0, at = start * outputs + groups[tree]! + output; row < count; row++, at += outputs) {
        const sum = sums[at]! + leafValues[values[ends[row]!]! + output]!;
        sums[at] = isSingle ? Math.fround(sum) : sum;
      }
    }
  }

  /** The value of the leaf where a row has ended; lines are added up in the order of their features. */
  #line(row: number): number {
    const { values, leafValues, linear } = this.#forest;
    const node = this.#ends[row]!;
    const leaf = linear.get(node);
    if (leaf === undefined) return leafValues[values[node]!]!;
    let sum = leaf.constant;
    for (let index = 0; index < leaf.features.length; index++) {
      const value = this.#block[row + leaf.features[index]! * STRIDE]!;
      if (Number.isNaN(value)) return leafValues[values[node]!]!;
      sum += leaf.coefficients[index]! * value;
    }
    return sum;
  }
}
