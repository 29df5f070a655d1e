// The rows of a case in each form that the scoring protocol knows, and as a table of DuckDB.
import { writeFileSync } from 'node:fs';
import type { Json, JsonObject } from '#core/json.ts';
import type { Case } from './stage.ts';

/** A request: a JSON body, or a text with its type. */
export interface Form {
  readonly title: string;
  readonly body: Json;
  readonly type?: string;
}

interface Split {
  readonly columns: readonly string[];
  readonly data: readonly (readonly Json[])[];
}

const splitOf = ({ body }: Case): Split | undefined => body.dataframe_split as unknown as Split | undefined;

/** The case as it is and, where its rows are a table, in all other forms. */
export function formsOf(one: Case): readonly Form[] {
  const params: JsonObject = one.params === undefined ? {} : { params: one.params };
  const split = splitOf(one);
  const own: Form = { title: Object.keys(one.body).join(), body: { ...one.body, ...params } };
  if (split === undefined) return [own];
  const records = recordsOf(split);
  const columns = Object.fromEntries(
    split.columns.map((name, at) => [name, split.data.map((row) => row[at] ?? null)]),
  );
  const forms: Form[] = [
    own,
    { title: 'dataframe_records', body: { dataframe_records: records, ...params } },
    { title: 'instances', body: { instances: records, ...params } },
    { title: 'inputs', body: { inputs: columns, ...params } },
  ];
  // An empty text and a missing one are the same in CSV, and it has no place for parameters.
  const hasEmptyText = split.data.some((row) => row.includes(''));
  if (!hasEmptyText && one.params === undefined)
    forms.push({ title: 'text/csv', body: csvOf(split), type: 'text/csv' });
  return forms;
}

const recordsOf = ({ columns, data }: Split): JsonObject[] =>
  data.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at] ?? null])));

function csvOf({ columns, data }: Split): string {
  const cell = (value: Json) => (value === null ? '' : typeof value === 'string' ? `"${value}"` : value);
  return [columns, ...data].map((row) => row.map(cell).join(',')).join('\n');
}

/** Writes the rows to `file` and gives the statement that predicts them, one JSON text a row, in order. */
export function statementOf(name: string, one: Case, file: string): string {
  const split = splitOf(one);
  const rows = split === undefined ? (one.body.instances as readonly Json[]) : recordsOf(split);
  const [first] = rows;
  const isNamed = typeof first === 'object' && first !== null && !Array.isArray(first);
  const named = (isNamed ? rows : rows.map((row) => ({ features: row }))) as readonly JsonObject[];
  writeFileSync(file, named.map((row, i) => JSON.stringify({ i, ...row })).join('\n'));
  const names = Object.keys(named[0] ?? {});
  const typed = names.map((column) => `"${column}": '${typeOf(named.map((row) => row[column] ?? null))}'`);
  const features = isNamed ? `{${names.map((column) => `"${column}": "${column}"`).join(', ')}}` : 'features';
  return `SELECT to_json(predict('${name}', ${features}))::VARCHAR
    FROM read_json('${file}', format = 'newline_delimited', columns = {i: 'BIGINT', ${typed.join(', ')}})
    ORDER BY i`;
}

function typeOf(values: readonly Json[]): string {
  const first = values.find((value) => value !== null);
  if (Array.isArray(first)) return `${typeOf(first as readonly Json[])}[]`;
  if (typeof first === 'string') return 'VARCHAR';
  return 'DOUBLE';
}
