// Decision trees as flat arrays: every split is one comparison `cell < threshold`, every pair of children lies side by
// side. Reading files into trees is for xgboost-*.ts and lightgbm-*.ts, walking them for walk.ts.
import { ServingError } from '#core/errors.ts';

/** A node of a tree as its library means it. Children are indexes into the same list. */
export type TreeNode =
  | { readonly kind: 'leaf'; readonly values: ArrayLike<number>; readonly linear?: LinearLeaf }
  | {
      readonly kind: 'number';
      readonly feature: number;
      readonly threshold: number;
      /** `less`: left when value < threshold; `atMost`: left when value <= threshold. */
      readonly test: 'less' | 'atMost';
      /** What counts as missing: NaN; NaN and zero; nothing, where NaN is zero. */
      readonly missing: 'nan' | 'zero' | 'none';
      readonly missingGoesLeft: boolean;
      readonly left: number;
      readonly right: number;
    }
  | {
      readonly kind: 'category';
      readonly feature: number;
      /** Bit c of word c / 32: category c is in the set. */
      readonly set: Uint32Array;
      /** Where members of the set go, and all others. */
      readonly inside: number;
      readonly outside: number;
      readonly missingIsInside: boolean;
    };

/** A leaf that is a line: constant + sum of coefficient times feature; `values` where one of the features is missing. */
export interface LinearLeaf {
  readonly constant: number;
  readonly features: readonly number[];
  readonly coefficients: readonly number[];
}

/** How a cell comes of a feature, so that every split can be the same comparison. */
export const PLAIN = 0;
export const NEGATED = 1;
export const ZERO_FOR_MISSING = 2;
export const MISSING_FOR_ZERO = 3;
export const MISSING_FOR_ZERO_NEGATED = 4;
const KINDS = 5;

export interface Forest {
  /** For each cell of a row: the feature, and what is done with its value. */
  readonly cellFeatures: Int32Array;
  readonly cellKinds: Uint8Array;
  /** By node. A leaf compares cell 0 with NaN and is its own next, so that it can be walked like any other. */
  readonly cells: Int32Array;
  readonly thresholds: Float64Array;
  /** The child where the comparison is false, or the cell is NaN; the other one comes right after. */
  readonly next: Int32Array;
  /** Leaves: the index of the first of `leafWidth` values. */
  readonly values: Int32Array;
  readonly leafValues: Float64Array;
  readonly leafWidth: number;
  /** By node: index of a set of categories, or -1. Empty where no tree has any. */
  readonly sets: Int32Array;
  readonly setStarts: Int32Array;
  readonly setWords: Uint32Array;
  readonly setTakesMissing: Uint8Array;
  /** By node; empty where no leaf is a line. The features are cells. */
  readonly linear: ReadonlyMap<number, LinearLeaf>;
  /** By tree. */
  readonly roots: Int32Array;
  /** The output that a tree adds to; 0 where leaves have a value for each output. */
  readonly groups: Int32Array;
  readonly hasSets: Uint8Array;
  /** Splits on the longest way from the root to a leaf. */
  readonly depths: Int32Array;
}

/** Takes trees one after the other. Throws INVALID_PARAMETER for a tree that is none (cycles, indexes out of range). */
export class ForestBuilder {
  readonly #featureCount: number;
  readonly #leafWidth: number;
  readonly #cellIndex = new Map<number, number>();
  readonly #cells: number[] = [];
  readonly #thresholds: number[] = [];
  readonly #next: number[] = [];
  readonly #values: number[] = [];
  readonly #leafValues: number[] = [];
  readonly #sets: number[] = [];
  readonly #setStarts: number[] = [0];
  readonly #setWords: number[] = [];
  readonly #setTakesMissing: number[] = [];
  readonly #linear = new Map<number, LinearLeaf>();
  readonly #roots: number[] = [];
  readonly #groups: number[] = [];
  readonly #hasSets: number[] = [];
  readonly #depths: number[] = [];

  constructor(featureCount: number, leafWidth = 1) {
    this.#featureCount = featureCount;
    this.#leafWidth = leafWidth;
    // Cell 0 exists even where no tree has a split: leaves look at it.
    this.#cell(0, PLAIN);
  }

  /** `nodes[0]` is the root. */
  add(nodes: readonly TreeNode[], group: number): void {
    const root = this.#place(1);
    this.#roots.push(root);
    this.#groups.push(group);
    this.#hasSets.push(Number(nodes.some(({ kind }) => kind === 'category')));
    const taken = new Uint8Array(nodes.length);
    // Level by level: the upper nodes, which every row visits, lie together.
    const queue: [from: number, to: number, depth: number][] = [[0, root, 0]];
    for (let head = 0; head < queue.length; head++) {
      const [from, to, depth] = queue[head] as [number, number, number];
      this.#depths[this.#roots.length - 1] = depth;
      const node = nodes[from];
      if (node === undefined || taken[from]) {
        throw brokenTree(
          this.#roots.length - 1,
          node ? `node ${from} has two parents` : `it has no node ${from}`,
        );
      }
      taken[from] = 1;
      if (node.kind === 'leaf') this.#leaf(node, to);
      else {
        if (!(node.feature >= 0 && node.feature < this.#featureCount)) {
          throw brokenTree(
            this.#roots.length - 1,
            `it splits by feature ${node.feature}, but the model has ${this.#featureCount}`,
          );
        }
        const [no, yes] = node.kind === 'number' ? this.#number(node, to) : this.#category(node, to);
        const first = this.#place(2);
        this.#next[to] = first;
        queue.push([no, first, depth + 1], [yes, first + 1, depth + 1]);
      }
    }
  }

  build(): Forest {
    const cells = [...this.#cellIndex.keys()];
    const hasSets = this.#setStarts.length > 1;
    return {
      cellFeatures: Int32Array.from(cells, (key) => Math.floor(key / KINDS)),
      cellKinds: Uint8Array.from(cells, (key) => key % KINDS),
      cells: Int32Array.from(this.#cells),
      thresholds: Float64Array.from(this.#thresholds),
      next: Int32Array.from(this.#next),
      values: Int32Array.from(this.#values),
      leafValues: Float64Array.from(this.#leafValues),
      leafWidth: this.#leafWidth,
      sets: Int32Array.from(hasSets ? this.#sets : []),
      setStarts: Int32Array.from(this.#setStarts),
      setWords: Uint32Array.from(this.#setWords),
      setTakesMissing: Uint8Array.from(this.#setTakesMissing),
      linear: this.#linear,
      roots: Int32Array.from(this.#roots),
      groups: Int32Array.from(this.#groups),
      hasSets: Uint8Array.from(this.#hasSets),
      depths: Int32Array.from(this.#depths),
    };
  }

  /** Room for nodes side by side; leaves until they are made splits. */
  #place(count: number): number {
    const first = this.#cells.length;
    for (let node = first; node < first + count; node++) {
      this.#cells.push(0);
      this.#thresholds.push(Number.NaN);
      this.#next.push(node);
      this.#values.push(0);
      this.#sets.push(-1);
    }
    return first;
  }

  #cell(feature: number, kind: number): number {
    const key = feature * KINDS + kind;
    const known = this.#cellIndex.get(key);
    if (known !== undefined) return known;
    this.#cellIndex.set(key, this.#cellIndex.size);
    return this.#cellIndex.size - 1;
  }

  #leaf({ values, linear }: Extract<TreeNode, { kind: 'leaf' }>, at: number): void {
    this.#values[at] = this.#leafValues.length;
    for (let index = 0; index < this.#leafWidth; index++) this.#leafValues.push(values[index] ?? 0);
    if (linear === undefined) return;
    if (linear.features.some((feature) => !(feature >= 0 && feature < this.#featureCount))) {
      throw brokenTree(
        this.#roots.length - 1,
        `a leaf is a line over features ${linear.features.join(', ')}`,
      );
    }
    this.#linear.set(at, {
      ...linear,
      features: linear.features.map((feature) => this.#cell(feature, PLAIN)),
    });
  }

  /**
   * Gives the children for "false or NaN" and for "true". NaN makes every comparison false, so the missing go where
   * false goes; where that is left, the comparison is turned round: x >= t is -x <= -t.
   */
  #number(node: Extract<TreeNode, { kind: 'number' }>, at: number): readonly [no: number, yes: number] {
    const { feature, threshold, test, missing, left, right } = node;
    const isTurned = missing !== 'none' && node.missingGoesLeft;
    // a <= b is a < the next number after b.
    // No value is at most NaN (LightGBM, where missing or not is the whole question): all that is there goes right.
    if (isTurned && Number.isNaN(threshold)) this.#thresholds[at] = Number.POSITIVE_INFINITY;
    else if (isTurned) this.#thresholds[at] = test === 'less' ? after(-threshold) : -threshold;
    else this.#thresholds[at] = test === 'less' ? threshold : after(threshold);
    const kind =
      missing === 'none'
        ? ZERO_FOR_MISSING
        : missing === 'nan'
          ? isTurned
            ? NEGATED
            : PLAIN
          : isTurned
            ? MISSING_FOR_ZERO_NEGATED
            : MISSING_FOR_ZERO;
    this.#cells[at] = this.#cell(feature, kind);
    return isTurned ? [left, right] : [right, left];
  }

  #category(node: Extract<TreeNode, { kind: 'category' }>, at: number): readonly [no: number, yes: number] {
    this.#cells[at] = this.#cell(node.feature, PLAIN);
    this.#sets[at] = this.#setTakesMissing.length;
    this.#setTakesMissing.push(Number(node.missingIsInside));
    for (const word of node.set) this.#setWords.push(word);
    this.#setStarts.push(this.#setWords.length);
    return [node.outside, node.inside];
  }
}

const BITS = new DataView(new ArrayBuffer(8));

/** The next larger double. */
export function after(value: number): number {
  if (value === Number.POSITIVE_INFINITY || Number.isNaN(value)) return value;
  if (value === 0) return Number.MIN_VALUE;
  BITS.setFloat64(0, value);
  BITS.setBigInt64(0, BITS.getBigInt64(0) + (value > 0 ? 1n : -1n));
  return BITS.getFloat64(0);
}

export function brokenTree(tree: number, reason: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `Tree ${tree} of the model is broken: ${reason}. The file was changed or damaged; save the model again.`,
  );
}
