// A table of int8 token vectors with one scale a row: its bytes on disk, and the mean of some of its rows.
// Not for words: which row belongs to which token is the tokenizer's matter.
import { ServingError } from '#core/errors.ts';

// Layout, little endian: magic, rows, dimensions (3 x uint32), a float32 scale for each row, then the int8 rows.
const MAGIC = 0x31_54_53_44; // "DST1"
const HEADER_BYTES = 12;

export interface VectorTable {
  readonly rows: number;
  readonly dimensions: number;
  readonly scales: Float32Array;
  readonly values: Int8Array;
}

/** Rounds float rows to int8; the largest value of a row becomes 127. A row of zeros stays one. */
export function quantiseRows(vectors: readonly Float64Array[], dimensions: number): VectorTable {
  const scales = new Float32Array(vectors.length);
  const values = new Int8Array(vectors.length * dimensions);
  for (const [row, vector] of vectors.entries()) {
    const largest = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (largest === 0) continue;
    scales[row] = largest / 127;
    for (let d = 0; d < dimensions; d++)
      values[row * dimensions + d] = Math.round(((vector[d] ?? 0) / largest) * 127);
  }
  return { rows: vectors.length, dimensions, scales, values };
}

export function formatTable(table: VectorTable): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + 4 * table.rows + table.values.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, table.rows, true);
  view.setUint32(8, table.dimensions, true);
  for (let row = 0; row < table.rows; row++)
    view.setFloat32(HEADER_BYTES + 4 * row, table.scales[row] ?? 0, true);
  bytes.set(
    new Uint8Array(table.values.buffer, table.values.byteOffset, table.values.length),
    HEADER_BYTES + 4 * table.rows,
  );
  return bytes;
}

export function parseTable(bytes: Uint8Array, where: string): VectorTable {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const rows = bytes.length < HEADER_BYTES ? 0 : view.getUint32(4, true);
  const dimensions = bytes.length < HEADER_BYTES ? 0 : view.getUint32(8, true);
  const expected = HEADER_BYTES + rows * (4 + dimensions);
  if (rows === 0 || view.getUint32(0, true) !== MAGIC || bytes.length !== expected) {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `${where} is not a static embedding table (${bytes.length} bytes). Restore the file from the duckserve package or make it anew with scripts/distil-static.ts.`,
    );
  }
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) scales[row] = view.getFloat32(HEADER_BYTES + 4 * row, true);
  const offset = bytes.byteOffset + HEADER_BYTES + 4 * rows;
  const values = new Int8Array(bytes.buffer, offset, rows * dimensions);
  return { rows, dimensions, scales, values };
}

/** Sum of the rows of `ids` scaled to length 1. Rows marked in `isSkipped` do not count; undefined when none is left. */
export function meanDirection(
  table: VectorTable,
  ids: Int32Array,
  isSkipped: Uint8Array,
): Float32Array | undefined {
  const kept = ids.filter((id) => isSkipped[id] === 0);
  const sum = new Float64Array(table.dimensions);
  let at = 0;
  for (; at + 4 <= kept.length; at += 4) addFourRows(table, kept, at, sum);
  for (; at < kept.length; at++) addRow(table, kept[at] as number, sum);
  // The mean differs from the sum by a factor only, which the length of 1 takes away again.
  let squares = 0;
  for (let d = 0; d < sum.length; d++) squares += (sum[d] as number) * (sum[d] as number);
  if (squares === 0) return undefined;
  const factor = 1 / Math.sqrt(squares);
  const direction = new Float32Array(sum.length);
  for (let d = 0; d < sum.length; d++) direction[d] = (sum[d] as number) * factor;
  return direction;
}

function addRow({ dimensions, scales, values }: VectorTable, id: number, sum: Float64Array): void {
  const scale = scales[id] as number;
  const offset = id * dimensions;
  for (let d = 0; d < dimensions; d++) sum[d] = (sum[d] as number) + scale * (values[offset + d] as number);
}

/** Four rows in one go read and write the sum once instead of four times. */
function addFourRows(
  { dimensions, scales, values }: VectorTable,
  ids: Int32Array,
  at: number,
  sum: Float64Array,
): void {
  const [a, b, c, d] = [
    ids[at] as number,
    ids[at + 1] as number,
    ids[at + 2] as number,
    ids[at + 3] as number,
  ];
  const [scaleA, scaleB] = [scales[a] as number, scales[b] as number];
  const [scaleC, scaleD] = [scales[c] as number, scales[d] as number];
  const [rowA, rowB, rowC, rowD] = [a * dimensions, b * dimensions, c * dimensions, d * dimensions];
  for (let i = 0; i < dimensions; i++) {
    sum[i] =
      (sum[i] as number) +
      scaleA * (values[rowA + i] as number) +
      scaleB * (values[rowB + i] as number) +
      scaleC * (values[rowC + i] as number) +
      scaleD * (values[rowD + i] as number);
  }
}
