// What a worker answers for a table of features as one item a row: a scalar for a model with one output, else an
// object by output name, or the failure of that row.
import type { Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import { decodeColumns, type PredictedColumn } from './columns.ts';
import type { Frame } from './frames.ts';

const NO_TOKENS = { inputTokens: 0, outputTokens: 0 };

/** One item for each of `count` rows. `redact`: for what the model says in exceptions. Throws INVALID_RESPONSE. */
export function toItems(
  model: string,
  signature: Signature | undefined,
  frame: Frame,
  count: number,
  redact: (text: string) => string,
): RunItem[] {
  const items: (RunItem | undefined)[] = new Array(count);
  const { parts, failed } = frame.header;
  let buffer = 0;
  for (const part of Array.isArray(parts) ? parts : []) {
    if (!isJsonObject(part)) continue;
    const { start, rows, columns, buffers } = part;
    const own = frame.buffers.slice(buffer, (buffer += Number(buffers)));
    const at = outputsAt(decodeColumns(columns, own, Number(rows)), signature);
    for (let row = 0; row < Number(rows); row++) {
      items[Number(start) + row] = { ok: true, output: { prediction: at(row) }, usage: NO_TOKENS };
    }
  }
  for (const failure of Array.isArray(failed) ? failed : []) {
    if (!isJsonObject(failure)) continue;
    const { type, message, start, end } = failure;
    const said = [type, message].filter((part) => typeof part === 'string' && part !== '').join(': ');
    const error = raised(model, redact(said), Number(end) - Number(start));
    for (let row = Number(failure.start); row < Number(failure.end); row++) items[row] = { ok: false, error };
  }
  return Array.from({ length: count }, (_, row) => items[row] ?? { ok: false, error: missing(model) });
}

function outputsAt(
  columns: readonly PredictedColumn[],
  signature: Signature | undefined,
): (row: number) => Json {
  const outputs = signature?.outputs ?? [];
  const [only] = columns;
  if (columns.length === 1 && only !== undefined) {
    const { cells } = only;
    // A matrix where the signature has columns: one value of each row for each of them.
    if (outputs.length > 1) return (row) => spread(cells[row] ?? null, outputs);
    // A column of one number a row that came as a matrix of width one.
    const isSingle = outputs.length === 1 && outputs[0]?.shape === undefined && outputs[0]?.type !== 'json';
    return (row) => (isSingle ? unwrap(cells[row] ?? null) : (cells[row] ?? null));
  }
  const names = columns.map(({ name }, index) => name ?? outputs[index]?.name ?? `output_${index}`);
  return (row) => Object.fromEntries(columns.map(({ cells }, index) => [names[index], cells[row] ?? null]));
}

function spread(cell: Json, outputs: Signature['outputs']): Json {
  if (!Array.isArray(cell) || cell.length !== outputs.length) return cell;
  return Object.fromEntries(outputs.map(({ name }, index) => [name, (cell[index] as Json) ?? null]));
}

function unwrap(cell: Json): Json {
  return Array.isArray(cell) && cell.length === 1 ? (cell[0] as Json) : cell;
}

function raised(model: string, what: string, rows: number): ServingError {
  const text =
    rows === 1
      ? `Model "${model}" raised ${what} for this row.`
      : `Model "${model}" raised ${what} for ${rows} rows together, and they were not tried one by one: too many rows fail. ` +
        'A model that takes one row at a time wants the option maxInputs=1; the log has the traceback.';
  return new ServingError('UPSTREAM_REJECTED', text);
}

function missing(model: string): ServingError {
  return new ServingError('INVALID_RESPONSE', `Model "${model}" gave no prediction for this row.`);
}
