// POST /api/2.0/sql/statements: one session a request, the whole result inline. A statement that fails is a
// well-formed answer with state FAILED (HTTP 200), as Databricks clients expect; only bad requests are errors.
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { CACHE_MODES } from '#core/call.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { StatementResult } from '#session/result.ts';
import type { HttpDeps } from './deps.ts';
import { parseWith } from './errors.ts';
import { withoutUndefined } from './parameters.ts';
import { type HttpContext, readJsonBody, requestSignal } from './request.ts';
import { sendJson } from './send.ts';
import { bindParameters, statementParameter } from './statement-parameters.ts';

export const statementBody = z.object({
  statement: z.string().min(1),
  parameters: z.array(statementParameter).nullish(),
  row_limit: z.int().min(1).nullish(),
  disposition: z.literal('INLINE', "only 'INLINE' is offered").nullish(),
  format: z.literal('JSON_ARRAY', "only 'JSON_ARRAY' is offered").nullish(),
  catalog: z.null('there is one database: name the schema in the statement').optional(),
  schema: z.null('name the schema in the statement').optional(),
  /** Ours: whether answers of AI functions are read and kept, and what the statement may spend. */
  cache: z.enum(CACHE_MODES).nullish(),
  max_calls: z.int().min(0).nullish(),
  max_tokens: z.int().min(0).nullish(),
  max_cost: z.number().min(0).nullish(),
});
type StatementBody = z.output<typeof statementBody>;

export async function answerStatement(c: HttpContext, deps: HttpDeps): Promise<Response> {
  const body = parseWith(statementBody, await readJsonBody(c));
  const { sql, values } = bindParameters(body.statement, body.parameters ?? []);
  const signal = requestSignal(c);
  const statementId = randomUUID();
  const session = await deps.openSession({ principal: c.get('principal'), origin: 'sql' });
  try {
    const results = await session.run(sql, {
      signal,
      ...(values.length === 0 ? {} : { parameters: values }),
      ...budgetOf(deps, body),
      ...(body.cache ? { cache: body.cache } : {}),
      // One more than asked for tells whether there was more.
      ...(body.row_limit ? { maxRows: body.row_limit + 1 } : {}),
    });
    const result = results.at(-1);
    if (result === undefined) throw new ServingError('SQL_ERROR', 'The text has no statement in it.');
    return sendJson(c, formatResult(statementId, result, body.row_limit ?? undefined), {
      'x-duckserve-cached': String(result.calls.cached),
    });
  } catch (thrown) {
    return c.json(formatFailure(deps, statementId, toServingError(thrown)));
  } finally {
    await session.close();
  }
}

function budgetOf(deps: HttpDeps, body: StatementBody) {
  const limits = withoutUndefined({
    maxCalls: body.max_calls ?? undefined,
    maxTokens: body.max_tokens ?? undefined,
    maxCost: body.max_cost ?? undefined,
  });
  return Object.keys(limits).length === 0 ? {} : { budget: deps.createBudget(limits) };
}

function formatResult(
  statementId: string,
  result: StatementResult,
  rowLimit: number | undefined,
): JsonObject {
  const table =
    result.kind === 'changed'
      ? changedRows(result)
      : { columns: result.columns, rows: firstRows(result, rowLimit) };
  const rows = rowLimit === undefined ? table.rows : table.rows.slice(0, rowLimit);
  return {
    statement_id: statementId,
    status: { state: 'SUCCEEDED' },
    manifest: {
      format: 'JSON_ARRAY',
      schema: {
        column_count: table.columns.length,
        columns: table.columns.map(({ name, type }, position) => ({
          name,
          type_text: type,
          type_name: toTypeName(type),
          position,
        })),
      },
      total_row_count: rows.length,
      truncated: rows.length < table.rows.length,
    },
    result: { row_count: rows.length, row_offset: 0, data_array: rows },
    ai_calls: { ...result.calls },
  };
}

/** One row more than the limit, where there is one: it tells that the result was cut. */
function firstRows(result: StatementResult, rowLimit: number | undefined): readonly (readonly Json[])[] {
  if (rowLimit === undefined) return [...result.rows()];
  const rows: (readonly Json[])[] = [];
  for (const row of result.rows()) {
    rows.push(row);
    if (rows.length > rowLimit) break;
  }
  return rows;
}

/** What a write answers: one row with the number of rows it changed. */
function changedRows(result: StatementResult): {
  columns: StatementResult['columns'];
  rows: readonly (readonly Json[])[];
} {
  return { columns: [{ name: 'num_affected_rows', type: 'BIGINT' }], rows: [[result.changedRows]] };
}

/** `DECIMAL(10,2)` is a DECIMAL, `INTEGER[]` a LIST; what a client needs to choose a decoder. */
function toTypeName(type: string): string {
  if (type.endsWith(']')) return 'ARRAY';
  return (/^[A-Za-z_]+/.exec(type)?.[0] ?? type).toUpperCase();
}

function formatFailure(deps: HttpDeps, statementId: string, error: ServingError): JsonObject {
  deps.log[error.row.logLevel]({ statementId, code: error.code, message: error.message }, 'statement failed');
  return {
    statement_id: statementId,
    status: {
      state: error.code === 'CANCELLED' ? 'CANCELED' : 'FAILED',
      error: { error_code: error.row.databricksCode, message: error.message },
      sql_state: error.row.sqlState,
    },
    error_reason: error.code,
  };
}
