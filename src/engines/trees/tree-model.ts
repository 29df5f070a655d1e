// A model of trees as the engine works with it, whatever library wrote the file: features, sums, and what becomes of
// the sums. Reading files is for xgboost.ts and lightgbm.ts.
import type { ColumnType } from '#core/endpoint.ts';
import type { Forest } from './forest.ts';
import type { Link } from './links.ts';

export interface TreeFeature {
  readonly name: string;
  readonly type: ColumnType;
  /** Values by category code, where the file knows them: texts and numbers stand for codes then. */
  readonly categories?: readonly (string | number | boolean)[];
}

/** Weights by feature, then by output; the last row is what is always added. */
interface LinearModel {
  readonly weights: Float64Array;
}

export interface TreeModel {
  readonly library: 'xgboost' | 'lightgbm';
  readonly objective: string;
  readonly features: readonly TreeFeature[];
  /** False: the file has no names of features; those in `features` are made up. */
  readonly hasNames: boolean;
  readonly forest: Forest;
  /** In place of trees. */
  readonly linear?: LinearModel;
  /** Sums a row. */
  readonly outputs: number;
  /** What each sum begins with. */
  readonly base: Float64Array;
  readonly link: Link;
  /** Sums are divided by this: the rounds of a random forest, else 1. */
  readonly divisor: number;
  /** Values and sums are float32. */
  readonly isSingle: boolean;
  /** Trees up to the best round, where early stopping has found one. */
  readonly bestTreeCount?: number;
  /** Outputs are classes: two for one output, else one an output. */
  readonly isClassifier: boolean;
  /** Outputs are questions of their own, each yes or no or a number. */
  readonly hasSeveralTargets: boolean;
}
