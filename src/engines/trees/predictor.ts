// Rows of feature values in, predictions out, for one model of trees: base score, trees, link, and the form of the
// answer (values, classes, raw sums). Which column is which feature is not decided here.
import type { PredictionColumn } from '../engine.ts';
import { applyLink, largest } from './links.ts';
import type { TreeModel } from './tree-model.ts';
import { type FeatureValues, Walker } from './walk.ts';

/**
 * `values`: what the library's own `predict` gives (probabilities, expectations); `classes`: the index of the class,
 * as scikit-learn's interface gives it; `raw`: sums before the link.
 */
export type Predicts = 'values' | 'classes' | 'raw';
export const PREDICTS: readonly Predicts[] = ['values', 'classes', 'raw'];

export interface PredictorOptions {
  readonly predicts: Predicts;
  /** Only the trees up to the best round of early stopping. */
  readonly usesBestIteration: boolean;
  /** Names of classes by index; absent: numbers. */
  readonly labels?: readonly (string | number)[];
}

export class Predictor {
  /** Numbers of one row's answer; 1: a number and no list. */
  readonly width: number;
  readonly #model: TreeModel;
  readonly #options: PredictorOptions;
  readonly #walker: Walker;

  constructor(model: TreeModel, options: PredictorOptions) {
    const { outputs, forest, isSingle, link, bestTreeCount } = model;
    this.#model = model;
    this.#options = options;
    this.#walker = new Walker(
      forest,
      outputs,
      isSingle,
      options.usesBestIteration ? bestTreeCount : undefined,
    );
    const isOne = options.predicts === 'classes' ? !model.hasSeveralTargets : link.kind === 'argmax';
    this.width = isOne && options.predicts !== 'raw' ? 1 : outputs;
  }

  predict(features: readonly FeatureValues[], rowCount: number): PredictionColumn['values'] {
    const { outputs, link, isSingle, divisor } = this.#model;
    const sums = this.#sum(features, rowCount);
    const { predicts } = this.#options;
    // Raw sums of a random forest are no mean, in the library neither.
    if (predicts === 'raw') return this.#rows(sums, rowCount);
    if (divisor !== 1) for (let index = 0; index < sums.length; index++) sums[index]! /= divisor;
    applyLink(link, sums, outputs, isSingle);
    if (predicts === 'classes') return this.#classes(sums, rowCount);
    if (link.kind !== 'argmax') return this.#rows(sums, rowCount);
    return Float64Array.from({ length: rowCount }, (_, row) => largest(sums, row * outputs, outputs));
  }

  #sum(features: readonly FeatureValues[], rowCount: number): Float64Array {
    const { outputs, base, linear } = this.#model;
    const sums = new Float64Array(rowCount * outputs);
    for (let index = 0; index < sums.length; index++) sums[index] = base[index % outputs] ?? 0;
    if (linear !== undefined) this.#addLinear(linear.weights, features, rowCount, sums);
    this.#walker.add(features, rowCount, sums);
    return sums;
  }

  /** A missing value adds nothing. */
  #addLinear(
    weights: Float64Array,
    features: readonly FeatureValues[],
    rowCount: number,
    sums: Float64Array,
  ): void {
    const { outputs } = this.#model;
    for (let at = 0; at < rowCount * outputs; at++) {
      const row = Math.floor(at / outputs);
      const output = at % outputs;
      let sum = Math.fround((sums[at] ?? 0) + (weights[features.length * outputs + output] ?? 0));
      for (const [index, values] of features.entries()) {
        const value = Math.fround(values[row] ?? Number.NaN);
        if (Number.isNaN(value)) continue;
        sum = Math.fround(sum + Math.fround(value * (weights[index * outputs + output] ?? 0)));
      }
      sums[at] = sum;
    }
  }

  #rows(values: Float64Array, rowCount: number): PredictionColumn['values'] {
    const { width } = this;
    if (width === 1) return values;
    return Array.from({ length: rowCount }, (_, row) => [...values.subarray(row * width, (row + 1) * width)]);
  }

  /** Of one output the class is yes above one half; of several targets each is one; else the largest wins. */
  #classes(values: Float64Array, rowCount: number): PredictionColumn['values'] {
    const { outputs, hasSeveralTargets } = this.#model;
    const { labels } = this.#options;
    if (hasSeveralTargets)
      return this.#rows(
        values.map((value) => Number(value > 0.5)),
        rowCount,
      );
    const classOf = (row: number) =>
      outputs === 1 ? Number((values[row] ?? 0) > 0.5) : largest(values, row * outputs, outputs);
    if (labels === undefined) return Float64Array.from({ length: rowCount }, (_, row) => classOf(row));
    return Array.from({ length: rowCount }, (_, row) => labels[classOf(row)] ?? classOf(row));
  }
}
