// The price table, which the user edits: what a provider's model costs, held in memory and read again when the
// table has changed. Empty until somebody fills it: prices change, and a wrong one is worse than none.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Price } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

export interface PriceRow extends Price {
  /** A provider, or `*` for any. */
  readonly provider: string;
  /** A model as its endpoint names it; `*` stands for any characters. */
  readonly model: string;
  readonly note: string | null;
}

const LOAD = `SELECT provider, model, input_per_million, output_per_million, note FROM duckserve.main.prices
  ORDER BY provider, model`;
const PUT = `INSERT INTO duckserve.main.prices VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (provider, model) DO UPDATE SET input_per_million = excluded.input_per_million,
    output_per_million = excluded.output_per_million, note = excluded.note`;

export async function openPriceStore(connection: DuckDBConnection): Promise<PriceStore> {
  const store = new PriceStore(connection);
  await store.reload();
  return store;
}

export class PriceStore {
  readonly #connection: DuckDBConnection;
  readonly #listeners: (() => void)[] = [];
  #rows: readonly PriceRow[] = [];
  #patterns: readonly { readonly row: PriceRow; readonly test: RegExp }[] = [];

  /** `connection`: one of its own, closed with the database. */
  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  list(): readonly PriceRow[] {
    return this.#rows;
  }

  /** The row that says most: without `*` before with, the longer before the shorter, the provider's own before any. */
  findPrice(provider: string, model: string): Price | undefined {
    return this.#patterns.find(
      ({ row, test }) => (row.provider === provider || row.provider === '*') && test.test(model),
    )?.row;
  }

  /** Throws INVALID_PARAMETER. Replaces the price of the same provider and model. */
  async set(row: PriceRow): Promise<void> {
    for (const [name, value] of [
      ['input', row.inputPerMillion],
      ['output', row.outputPerMillion],
    ] as const) {
      if (Number.isFinite(value) && value >= 0) continue;
      throw new ServingError(
        'INVALID_PARAMETER',
        `The ${name} price is ${value}; it must be US dollars per million tokens, 0 or more.`,
      );
    }
    await this.#connection.run(PUT, [
      row.provider,
      row.model,
      row.inputPerMillion,
      row.outputPerMillion,
      row.note,
    ]);
    await this.reload();
  }

  /** Throws NOT_FOUND. */
  async delete(provider: string, model: string): Promise<void> {
    if (!this.#rows.some((row) => row.provider === provider && row.model === model)) {
      throw new ServingError('NOT_FOUND', `There is no price of '${model}' of provider '${provider}'.`);
    }
    await this.#connection.run('DELETE FROM duckserve.main.prices WHERE provider = $1 AND model = $2', [
      provider,
      model,
    ]);
    await this.reload();
  }

  /** After the table was changed by SQL. */
  async reload(): Promise<void> {
    const reader = await this.#connection.runAndReadAll(LOAD);
    this.#rows = reader.getRows().map(([provider, model, input, output, note]) => ({
      provider: String(provider),
      model: String(model),
      inputPerMillion: Number(input),
      outputPerMillion: Number(output),
      note: note === null ? null : String(note),
    }));
    this.#patterns = [...this.#rows]
      .sort((left, right) => precision(right) - precision(left))
      .map((row) => ({ row, test: toPattern(row.model) }));
    for (const listener of this.#listeners) listener();
  }

  /** Heard after every change. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

function precision({ provider, model }: PriceRow): number {
  return (
    (model.includes('*') ? 0 : 1_000_000) + model.replaceAll('*', '').length * 2 + (provider === '*' ? 0 : 1)
  );
}

function toPattern(model: string): RegExp {
  // Runs of * mean the same as one; several in a row would make matching slow.
  const parts = model
    .replace(/\*+/g, '*')
    .split('*')
    .map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's');
}
