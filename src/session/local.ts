// Answers a chunk inside the callback by a model that is local, synchronous and cheap (a tabular ONNX model, a
// static embedding table): no pass, no queue. Governance and usage still see one call per statement.
import type { DuckDBVector } from '@duckdb/node-api';
import type { Task } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import type { AiFunction, ReturnType } from '#functions/function.ts';
import { noFeatures } from '#functions/predict.ts';
import type { LocalTarget } from '#serving/serving.ts';
import { type ArgumentColumn, featureColumns, hasListFeatures, writeValue } from './columns.ts';
import type { StatementRun } from './statement-run.ts';

/** False when the model of these rows is not local: then they are questions like all others. */
export function answerLocally(
  called: AiFunction,
  capability: 'embed' | 'predict',
  columns: readonly ArgumentColumn[],
  rowCount: number,
  output: DuckDBVector,
  run: StatementRun,
): boolean {
  const endpoint = sharedEndpoint(columns[0], rowCount, capability, run);
  if (endpoint === undefined) return false;
  if (capability === 'predict' && hasListFeatures(columns.slice(1).map((column) => column.vector)))
    return false;
  const task: Task = capability === 'embed' ? 'llm/v1/embeddings' : 'predict';
  const local = run.local(endpoint, task);
  if (local === 'remote') return false;
  if (local === 'to be loaded') {
    // Loading needs to wait, so this pass is left open; it may as well end here.
    run.sheet.leaveOpen();
    if (run.mayAbandonPass) throw run.abandonPass();
    for (let row = 0; row < rowCount; row++) writeValue(output, row, null, called.returns);
    return true;
  }
  if (!run.countLocal(local, rowCount)) return false;
  if (capability === 'embed') embedRows(local, columns[1], rowCount, output, called.returns);
  else predictRows(local, columns.slice(1), rowCount, output, called.returns);
  return true;
}

/** The one endpoint of all rows, or undefined when they differ or some have none. */
function sharedEndpoint(
  column: ArgumentColumn | undefined,
  rowCount: number,
  capability: 'embed' | 'predict',
  run: StatementRun,
): string | undefined {
  if (!column) return undefined;
  const first = column.value(0);
  for (let row = 1; row < rowCount; row++) if (column.value(row) !== first) return undefined;
  if (typeof first === 'string') return first;
  return first === null && capability === 'embed' ? run.context.defaultEndpoint('embedding') : undefined;
}

function embedRows(
  local: LocalTarget,
  column: ArgumentColumn | undefined,
  rowCount: number,
  output: DuckDBVector,
  returns: ReturnType,
): void {
  const rows: number[] = [];
  const texts: string[] = [];
  for (let row = 0; row < rowCount; row++) {
    const value = column?.value(row) ?? null;
    if (value === null) writeValue(output, row, null, returns);
    else {
      rows.push(row);
      texts.push(typeof value === 'string' ? value : JSON.stringify(value));
    }
  }
  const vectors = local.runner.embed?.(texts) ?? [];
  rows.forEach((row, index) => {
    writeValue(output, row, vectors[index] ?? null, returns);
  });
}

function predictRows(
  local: LocalTarget,
  columns: readonly ArgumentColumn[],
  rowCount: number,
  output: DuckDBVector,
  returns: ReturnType,
): void {
  if (columns.length === 0) throw noFeatures(local.target.endpoint);
  const features = featureColumns(
    columns.map((column) => column.vector),
    rowCount,
  );
  if (features.nullRows && !features.nullRows.includes(0)) {
    for (let row = 0; row < rowCount; row++) writeValue(output, row, null, returns);
    return;
  }
  const predictions = local.runner.predictColumns?.(features.columns, rowCount) ?? [];
  const [only] = predictions;
  for (let row = 0; row < rowCount; row++) {
    if (features.nullRows?.[row]) writeValue(output, row, null, returns);
    else if (predictions.length === 1 && only) writeValue(output, row, plain(only.values[row]), returns);
    else
      writeValue(
        output,
        row,
        Object.fromEntries(predictions.map((column) => [column.name, plain(column.values[row])])),
        returns,
      );
  }
}

function plain(cell: Json | undefined): Json {
  if (cell === undefined) return null;
  return typeof cell === 'number' && Number.isNaN(cell) ? null : cell;
}
