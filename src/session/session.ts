// A SQL session: one DuckDB connection, one principal, statements one after the other. Doors call `run`.
import { setMaxListeners } from 'node:events';
import type { DuckDBConnection, DuckDBMaterializedResult, DuckDBValue } from '@duckdb/node-api';
import type { Budget, CacheMode, Origin, Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { PlanContext } from '#functions/function.ts';
import type { Serving } from '#serving/serving.ts';
import { type Command, runCommand } from './commands.ts';
import { describeEndpoint } from './describe.ts';
import { anyRowsWanted } from './early-stop.ts';
import { add, estimateSheet, estimateTable, NOTHING_TO_ASK, type StatementEstimate } from './estimate.ts';
import { runPasses } from './passes.ts';
import { type Progress, ProgressMeter } from './progress.ts';
import { DONE, NO_CALLS, type StatementResult, toStatementResult } from './result.ts';
import { rewriteCalls } from './rewrite.ts';
import { SessionSettings } from './settings.ts';
import { copySource, parseStatement, parseStatements, type Statement } from './statement.ts';
import { type Asking, StatementRun } from './statement-run.ts';
import { refuseSystemChange } from './system-guard.ts';
import { withOurNames, writesPrices } from './system-names.ts';
import { TransactionKeeper } from './transaction.ts';

export interface SessionDependencies {
  readonly serving: Serving;
  readonly clock: Clock;
  readonly commands: readonly Command[];
  /** Endpoint for a function that was given none. Throws MODEL_NOT_AVAILABLE. */
  readonly defaultEndpoint: PlanContext['defaultEndpoint'];
  readonly createBudget: (limits: Budget['limits']) => Budget;
  /** Whether closing the session closes its connection. */
  readonly ownsConnection: boolean;
  /** On a connection of somebody else's: puts back the functions that a rolled back transaction took away. */
  readonly restore: () => Promise<void>;
  /** Makes usage and answers of earlier statements visible to one that reads the system tables. */
  readonly flushStores: () => Promise<void>;
  /** The price table was edited, and the edit is committed. */
  readonly pricesChanged?: () => Promise<void>;
  /** Statements by connection id, read by the binding. */
  readonly runs: Map<number, StatementRun>;
}

export interface SessionOptions {
  readonly principal: Principal;
  readonly origin: Origin;
}

export interface StatementOptions {
  /** Values for `?` and `$1`, in order. */
  readonly parameters?: readonly Json[];
  /** Cancels the statement and the calls it waits for. */
  readonly signal?: AbortSignal;
  readonly budget?: Budget;
  readonly cache?: CacheMode;
  readonly onProgress?: (progress: Progress) => void;
  /** Heard after each statement, before the next begins. */
  readonly onResult?: (result: StatementResult) => void | Promise<void>;
}

export class Session {
  readonly #connection: DuckDBConnection;
  readonly #connectionId: number;
  readonly #dependencies: SessionDependencies;
  readonly #options: SessionOptions;
  readonly #transactions: TransactionKeeper;
  readonly #settings: SessionSettings;
  #tail: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  #hasNewPrices = false;

  /** `connection` must have been prepared (macros, functions); it is the session's alone while it is open. */
  constructor(connection: DuckDBConnection, dependencies: SessionDependencies, options: SessionOptions) {
    this.#connection = connection;
    this.#connectionId = Number(connection.clientContext.connectionId);
    this.#dependencies = dependencies;
    this.#options = options;
    this.#transactions = new TransactionKeeper(connection);
    this.#settings = new SessionSettings(dependencies.createBudget);
  }

  /** Runs the statements of a text in order and gives one result each. Throws the first ServingError. */
  run(sql: string, options: StatementOptions = {}): Promise<readonly StatementResult[]> {
    return this.#inTurn(async () => {
      const results: StatementResult[] = [];
      for (const statement of parseStatements(sql).map(withOurNames)) {
        const result = await this.#runStatement(statement, options);
        await this.#noteNewPrices(statement);
        results.push(result);
        await options.onResult?.(result);
      }
      return results;
    });
  }

  /** What the statements of a text would ask, without asking. Writes are undone, files are not written. */
  estimate(sql: string, options: StatementOptions = {}): Promise<StatementEstimate> {
    return this.#inTurn(async () => {
      let total: StatementEstimate = NOTHING_TO_ASK;
      for (const statement of parseStatements(sql).map(withOurNames)) {
        const part = await this.#estimateStatement(statement, options);
        total = {
          ...add(total, part),
          unknown: [total.unknown, part.unknown].filter((sentence) => sentence !== null).join(' ') || null,
          endpoints: [...total.endpoints, ...part.endpoints],
        };
      }
      return total;
    });
  }

  /** Completions for the word before the cursor, by DuckDB's own extension. */
  complete(textBeforeCursor: string): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      const reader = await this.#connection.runAndReadAll('SELECT suggestion FROM sql_auto_complete($1)', [
        textBeforeCursor,
      ]);
      return reader.getRows().map(([suggestion]) => String(suggestion));
    });
  }

  /** Closes the connection after the statement that is running. A transaction left open is rolled back. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      if (!this.#isClosed && this.#dependencies.ownsConnection) this.#connection.closeSync();
      this.#isClosed = true;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(work);
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  async #noteNewPrices(statement: Statement): Promise<void> {
    if (writesPrices(statement)) this.#hasNewPrices = true;
    if (statement.kind === 'rollback') this.#hasNewPrices = false;
    if (!this.#hasNewPrices || this.#transactions.isOpen) return;
    this.#hasNewPrices = false;
    await this.#dependencies.pricesChanged?.();
  }

  async #runStatement(statement: Statement, options: StatementOptions): Promise<StatementResult> {
    throwIfAborted(options.signal);
    if (statement.tokens.some((token) => token.value.startsWith('duckserve')))
      await this.#dependencies.flushStores();
    refuseSystemChange(statement);
    if (!this.#dependencies.ownsConnection) {
      await this.#dependencies.restore();
      await this.#transactions.lookAround();
    }
    switch (statement.kind) {
      case 'begin':
      case 'commit':
      case 'rollback':
        return toStatementResult(
          await this.#orSqlError(this.#transactions.control(statement.kind, statement.text)),
          NO_CALLS,
        );
      case 'set':
        this.#settings.apply(statement);
        return DONE;
      case 'call':
        return this.#orSqlError(
          runCommand(statement, this.#dependencies.commands, this.#connection, this.#options.principal),
        );
      case 'estimate':
        return estimateTable(await this.#estimateStatement(inner(statement), options));
      default:
        return this.#runInPasses(statement, options);
    }
  }

  async #runInPasses(statement: Statement, options: StatementOptions): Promise<StatementResult> {
    const run = this.#createRun(options);
    const meter = new ProgressMeter(this.#dependencies.clock, options.onProgress);
    const ended = await this.#whileRunning(run, options.signal, async (signal) => {
      if (statement.kind === 'explain')
        return {
          result: await this.#orSqlError(this.#execute(this.#rewrite(statement), options)),
          passes: 1,
        };
      if (statement.kind === 'copy' && (await this.#mayAsk(copySource(statement)))) {
        await this.#passes(copySource(statement), run, meter, options, signal);
      }
      return this.#passes(statement, run, meter, options, signal);
    }).catch((error: unknown) => {
      run.releaseLocals();
      throw error;
    });
    await run.recordLocals();
    meter.end();
    const result = await toStatementResult(ended.result, {
      asked: meter.asked,
      cached: meter.cached,
      passes: ended.passes,
    });
    if (statement.kind !== 'read') return result;
    return { ...result, copyTo: (path, format) => this.#copyTo(statement, run, path, format, options) };
  }

  async #passes(
    statement: Statement,
    run: StatementRun,
    meter: ProgressMeter,
    options: StatementOptions,
    signal: AbortSignal,
  ) {
    const text = this.#rewrite(statement);
    const { serving } = this.#dependencies;
    const wanted = await this.#anyRowsWanted(statement);
    const isEnough =
      wanted === undefined ? undefined : (result: DuckDBMaterializedResult) => result.rowCount >= wanted;
    return runPasses<DuckDBMaterializedResult>({
      run,
      meter,
      serving,
      signal,
      ...this.#asking,
      budget: options.budget ?? this.#settings.budget,
      mayStopEarly: statement.mayStopEarly,
      isEnough,
      execute: (pass) =>
        this.#transactions.runPass(statement.kind, run, pass, () =>
          this.#orSqlError(this.#execute(text, options)),
        ),
    });
  }

  /** The number of rows that end the statement, where any rows that pass its filter will do. */
  async #anyRowsWanted(statement: Statement): Promise<number | undefined> {
    const limit = anyRowsWanted(statement);
    return limit === undefined || (await this.#namesUserCode(statement)) ? undefined : limit;
  }

  /** False for a plain table, which would be read into memory only to see that it asks nothing. */
  async #mayAsk(source: Statement): Promise<boolean> {
    return source.tokens[0]?.value !== 'from' || (await this.#namesUserCode(source));
  }

  /** Does it name a view or a macro of the user, which may hold AI calls that are not in the text? */
  async #namesUserCode(statement: Statement): Promise<boolean> {
    const names = statement.tokens.flatMap(({ kind, value }) =>
      kind === 'word' || kind === 'quoted' ? [value.toLowerCase()] : [],
    );
    const reader = await this.#connection.runAndReadAll(USER_CODE);
    return reader.getRows().some(([name]) => names.includes(String(name)));
  }

  /** Runs the query once more, into a file; all its answers are on the sheet, so nothing is asked again. */
  #copyTo(
    statement: Statement,
    run: StatementRun,
    path: string,
    format: 'parquet',
    options: StatementOptions,
  ): Promise<void> {
    return this.#inTurn(async () => {
      const copy = parseStatement(
        `COPY (${statement.text}) TO '${path.replaceAll("'", "''")}' (FORMAT ${format})`,
      );
      const meter = new ProgressMeter(this.#dependencies.clock, undefined);
      await this.#whileRunning(run, options.signal, (signal) =>
        this.#passes(copy, run, meter, options, signal),
      );
    });
  }

  async #estimateStatement(statement: Statement, options: StatementOptions): Promise<StatementEstimate> {
    const asked = statement.kind === 'copy' ? copySource(statement) : statement;
    if (asked.kind !== 'read' && asked.kind !== 'write') return NOTHING_TO_ASK;
    if (asked.kind === 'write' && this.#transactions.isOpen) {
      throw new ServingError(
        'AI_IN_TRANSACTION',
        'A write cannot be estimated inside a transaction: its trial run could not be undone alone. COMMIT or ROLLBACK first.',
      );
    }
    const run = this.#createRun(options);
    run.mayLoad = false;
    return this.#whileRunning(run, options.signal, async () => {
      run.beginPass(Number.POSITIVE_INFINITY);
      // Left open on purpose: a write is undone whatever it asked.
      run.sheet.leaveOpen();
      const text = this.#rewrite(asked);
      try {
        await this.#transactions.runPass(asked.kind, run, 1, () =>
          this.#orSqlError(this.#execute(text, options)),
        );
      } catch (error) {
        // NULL placeholders may have caused it; without a question it is the user's own error.
        if (run.failure) throw run.failure;
        if (run.sheet.fresh.length === 0) throw error;
      }
      return estimateSheet(run.sheet, asked, this.#dependencies.serving, this.#options.principal);
    });
  }

  /** Rows of a statement are no requests of a program, also where the statement came in by HTTP. */
  get #asking(): Asking {
    const { principal, origin } = this.#options;
    return { principal, origin: origin === 'http' ? 'sql' : origin };
  }

  #createRun(options: StatementOptions): StatementRun {
    const { serving, clock, defaultEndpoint } = this.#dependencies;
    const context: PlanContext = {
      describe: (endpoint) => describeEndpoint(serving, endpoint),
      defaultEndpoint,
      cache: options.cache ?? this.#settings.cache,
    };
    return new StatementRun(serving, context, clock.now(), this.#asking);
  }

  /** Makes the run findable for callbacks, and interrupts DuckDB when the signal fires. */
  async #whileRunning<T>(
    run: StatementRun,
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    // Every request in flight listens to the signal of its statement.
    if (signal) setMaxListeners(0, signal);
    const onAbort = () => this.#connection.interrupt();
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#dependencies.runs.set(this.#connectionId, run);
    try {
      return await work(signal ?? new AbortController().signal);
    } finally {
      this.#dependencies.runs.delete(this.#connectionId);
      run.letGoOfModels();
      signal?.removeEventListener('abort', onAbort);
      await this.#transactions.endStatement();
    }
  }

  #rewrite(statement: Statement): string {
    const { serving } = this.#dependencies;
    return rewriteCalls(statement.text, statement.tokens, {
      describe: (endpoint) => {
        try {
          return describeEndpoint(serving, endpoint);
        } catch {
          return undefined;
        }
      },
    });
  }

  #execute(text: string, options: StatementOptions): Promise<DuckDBMaterializedResult> {
    const { parameters } = options;
    return parameters && parameters.length > 0
      ? this.#connection.run(text, parameters.map(toParameter))
      : this.#connection.run(text);
  }

  async #orSqlError<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (error instanceof ServingError) throw error;
      throw new ServingError('SQL_ERROR', error instanceof Error ? error.message : String(error), {
        cause: error,
      });
    }
  }
}

/** Views and macros, ours left out: those are in the text of a statement. */
const USER_CODE =
  'SELECT lower(view_name) FROM duckdb_views() WHERE NOT internal UNION ALL SELECT lower(function_name) FROM duckdb_functions() ' +
  "WHERE NOT internal AND function_type IN ('macro', 'table_macro') AND NOT starts_with(ltrim(function_name, '_'), 'ai_')";

/** ESTIMATE statement -> statement. */
function inner(statement: Statement): Statement {
  const first = statement.tokens[1];
  if (!first)
    throw new ServingError(
      'BAD_REQUEST',
      'ESTIMATE needs a statement after it, such as ESTIMATE SELECT ai_gen(body) FROM mails.',
    );
  return parseStatement(statement.text.slice(first.start));
}

/** Lists and objects travel as JSON text, which DuckDB casts. */
function toParameter(value: Json): DuckDBValue {
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : value;
}
