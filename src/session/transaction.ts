// How one pass of a statement is run so that it can be undone: in a transaction of its own, or in the user's.
// Database clients open transactions by themselves, so an AI write must work as the first write of one.
import type { DuckDBConnection, DuckDBMaterializedResult } from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import type { StatementKind } from './statement.ts';
import type { StatementRun } from './statement-run.ts';

/** `clean`: only reads so far, it may be begun again. `dirty`: something was written in it. */
type UserTransaction = { state: 'none' } | { state: 'clean' | 'dirty'; begin: string };

export class TransactionKeeper {
  readonly #connection: DuckDBConnection;
  #user: UserTransaction = { state: 'none' };
  /** A transaction of ours around the passes of a read, so that all of them see the same data and the same now(). */
  #isReading = false;

  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  /**
   * Before each statement on a connection of somebody else's: a transaction that is open there was not begun here,
   * may have written and cannot be begun again. Outside of one, every statement has a transaction id of its own.
   */
  async lookAround(): Promise<void> {
    if (this.#user.state === 'clean') return;
    const ids: string[] = [];
    for (let look = 0; look < 2; look++) {
      const reader = await this.#connection.runAndReadAll('SELECT txid_current()');
      ids.push(String(reader.getRows()[0]?.[0]));
    }
    this.#user = ids[0] === ids[1] ? { state: 'dirty', begin: '' } : { state: 'none' };
  }

  get isOpen(): boolean {
    return this.#user.state !== 'none';
  }

  /** BEGIN, COMMIT or ROLLBACK of the user, run as written. */
  async control(kind: 'begin' | 'commit' | 'rollback', text: string): Promise<DuckDBMaterializedResult> {
    try {
      const result = await this.#connection.run(text);
      this.#user = kind === 'begin' ? { state: 'clean', begin: text } : { state: 'none' };
      return result;
    } catch (error) {
      // A COMMIT that fails has ended the transaction too; a BEGIN or ROLLBACK that fails changed nothing.
      if (kind === 'commit') this.#user = { state: 'none' };
      throw error;
    }
  }

  /** Runs one pass of a statement; `execute` is the bare run. What an unsettled pass did is undone. */
  async runPass(
    kind: StatementKind,
    run: StatementRun,
    pass: number,
    execute: () => Promise<DuckDBMaterializedResult>,
  ): Promise<DuckDBMaterializedResult> {
    if (kind === 'write') return this.#runWrite(run, execute);
    if (kind === 'read' || kind === 'copy') return this.#runRead(run, pass, execute);
    const result = await execute();
    if (this.#user.state === 'clean' && kind !== 'setting') this.#user = { ...this.#user, state: 'dirty' };
    return result;
  }

  async #runWrite(
    run: StatementRun,
    execute: () => Promise<DuckDBMaterializedResult>,
  ): Promise<DuckDBMaterializedResult> {
    if (this.#user.state === 'dirty') {
      run.mayAbandonPass = false;
      run.refusal = new ServingError(
        'AI_IN_TRANSACTION',
        'This write asks a model, but the transaction has already written something, and what was written cannot be undone alone. ' +
          'COMMIT first, or make this the first write of the transaction, or compute the answers into a table beforehand.',
      );
      return execute();
    }
    const begin = this.#user.state === 'clean' ? this.#user.begin : 'BEGIN TRANSACTION';
    const isOurs = this.#user.state === 'none';
    if (isOurs) await this.#connection.run(begin);
    let result: DuckDBMaterializedResult;
    try {
      result = await execute();
    } catch (error) {
      if (isOurs) await this.#rollback();
      else if (!run.sheet.isSettled) await this.#beginAgain(begin);
      throw error;
    }
    if (!run.sheet.isSettled) {
      if (isOurs) await this.#rollback();
      else await this.#beginAgain(begin);
    } else if (isOurs) await this.#connection.run('COMMIT');
    else this.#user = { state: 'dirty', begin };
    return result;
  }

  async #runRead(
    run: StatementRun,
    pass: number,
    execute: () => Promise<DuckDBMaterializedResult>,
  ): Promise<DuckDBMaterializedResult> {
    if (this.#user.state !== 'none') {
      run.mayAbandonPass = this.#user.state === 'clean';
      try {
        return await execute();
      } catch (error) {
        if (run.sheet.isSettled) throw error;
        if (this.#user.state === 'dirty') throw run.refuse(lostTransaction(error));
        await this.#beginAgain(this.#user.begin);
        throw error;
      }
    }
    // The first pass of most statements is their only one and needs no transaction.
    if (pass > 1 && !this.#isReading) {
      await this.#connection.run('BEGIN TRANSACTION');
      this.#isReading = true;
    }
    try {
      return await execute();
    } catch (error) {
      if (this.#isReading) {
        await this.#rollback();
        this.#isReading = false;
      }
      throw error;
    }
  }

  /** After the last pass of a statement, whatever became of it. */
  async endStatement(): Promise<void> {
    if (!this.#isReading) return;
    this.#isReading = false;
    await this.#connection.run('COMMIT');
  }

  async #beginAgain(begin: string): Promise<void> {
    await this.#rollback();
    await this.#connection.run(begin);
  }

  async #rollback(): Promise<void> {
    await this.#connection.run('ROLLBACK');
  }
}

function lostTransaction(cause: unknown): ServingError {
  return new ServingError(
    'AI_IN_TRANSACTION',
    `This query failed before its answers were there (${cause instanceof Error ? cause.message.split('\n')[0] : String(cause)}), ` +
      'and as the transaction has already written something it cannot be begun again. ROLLBACK, and run the query before the first write or after COMMIT.',
    { cause },
  );
}
