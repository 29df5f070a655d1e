// From sums of leaves to predictions: the output functions of objectives. Which objective has which is said where
// files are read.

export type Link =
  | { readonly kind: 'identity' }
  | { readonly kind: 'logistic'; readonly slope: number }
  | { readonly kind: 'exp' }
  /** Of a regression that has learned square roots. */
  | { readonly kind: 'signed-square' }
  | { readonly kind: 'log1p-exp' }
  | { readonly kind: 'step' }
  | { readonly kind: 'softmax' }
  /** One value a row: the index of the largest. */
  | { readonly kind: 'argmax' };

/** XGBoost cuts off here, where float32 ends. */
const MAX_EXPONENT = 88.7;

/** Turns sums into predictions in place; `argmax` is left to `largest`. `isSingle`: in float32, as XGBoost calculates. */
export function applyLink(link: Link, sums: Float64Array, outputs: number, isSingle: boolean): void {
  const round = isSingle ? Math.fround : (value: number) => value;
  if (link.kind === 'softmax') {
    for (let start = 0; start < sums.length; start += outputs) softmax(sums, start, outputs, round);
    return;
  }
  const change = changeOf(link, isSingle);
  if (change === undefined) return;
  for (let index = 0; index < sums.length; index++) sums[index] = round(change(sums[index] ?? 0));
}

/** What is done with each sum by itself; undefined: nothing. */
function changeOf(link: Link, isSingle: boolean): ((sum: number) => number) | undefined {
  switch (link.kind) {
    case 'logistic':
      return isSingle ? singleLogistic : (sum) => 1 / (1 + Math.exp(-link.slope * sum));
    case 'exp':
      return Math.exp;
    case 'signed-square':
      return (sum) => Math.sign(sum) * sum * sum;
    case 'log1p-exp':
      return (sum) => Math.log1p(Math.exp(sum));
    case 'step':
      return (sum) => (sum > 0 ? 1 : 0);
    case 'identity':
    case 'softmax':
    case 'argmax':
      return undefined;
  }
}

function singleLogistic(sum: number): number {
  return 1 / Math.fround(Math.fround(Math.exp(Math.min(-sum, MAX_EXPONENT))) + 1);
}

function softmax(sums: Float64Array, start: number, outputs: number, round: (value: number) => number): void {
  let most = Number.NEGATIVE_INFINITY;
  for (let index = start; index < start + outputs; index++) most = Math.max(most, sums[index] ?? 0);
  let total = 0;
  for (let index = start; index < start + outputs; index++) {
    const power = round(Math.exp((sums[index] ?? 0) - most));
    sums[index] = power;
    total += power;
  }
  total = round(total);
  for (let index = start; index < start + outputs; index++) sums[index] = round((sums[index] ?? 0) / total);
}

/** Index of the largest value of a row, the first of equals. */
export function largest(values: Float64Array, start: number, count: number): number {
  let best = 0;
  for (let index = 1; index < count; index++) {
    if ((values[start + index] ?? 0) > (values[start + best] ?? 0)) best = index;
  }
  return best;
}

/** The margin that a base score given as a prediction stands for, in float32. */
export function toMargin(objective: string, baseScore: number): number {
  const score = Math.fround(baseScore);
  if (/^(binary:logistic|reg:logistic)$/.test(objective)) {
    return Math.fround(-Math.log(Math.fround(Math.fround(1 / score) - 1)));
  }
  if (/^(count:poisson|reg:gamma|reg:tweedie|survival:cox|survival:aft)$/.test(objective)) {
    return Math.fround(Math.log(score));
  }
  return score;
}
