// From the states of word pieces to one vector a text: pooling, unit length, and which texts share a run. Pure numbers.

/** Mean of the first `length` rows of one text, or its first row. `states` is rows x width, from `offset` on. */
export function pool(
  states: Float32Array,
  offset: number,
  length: number,
  width: number,
  pooling: 'mean' | 'cls',
): Float32Array {
  if (pooling === 'cls') return states.slice(offset, offset + width);
  const mean = new Float32Array(width);
  for (let row = 0; row < length; row++) {
    const start = offset + row * width;
    for (let d = 0; d < width; d++) mean[d] = (mean[d] as number) + (states[start + d] as number);
  }
  for (let d = 0; d < width; d++) mean[d] = (mean[d] as number) / length;
  return mean;
}

/** Scales to length 1 in place; a vector of zeros stays one. */
export function normalise(vector: Float32Array): void {
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (squares === 0) return;
  const factor = 1 / Math.sqrt(squares);
  for (let d = 0; d < vector.length; d++) vector[d] = (vector[d] as number) * factor;
}

/** Indices in runs of at most `rows`, texts of like length together, so that little is computed on padding. */
export function planRuns(lengths: readonly number[], rows: number): number[][] {
  const order = [...lengths.keys()];
  if (rows > 1) order.sort((left, right) => (lengths[left] ?? 0) - (lengths[right] ?? 0));
  const runs: number[][] = [];
  for (let from = 0; from < order.length; from += rows) runs.push(order.slice(from, from + rows));
  return runs;
}
