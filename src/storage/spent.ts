// What was spent, by endpoint and requester: the sums of the ledger that money budgets begin with.
import type { UsageStore } from '#core/stores.ts';
import type { Database } from './database.ts';

const SPENT = `SELECT endpoint, requester, sum(cost)::DOUBLE FROM duckserve.main.usage
  WHERE request_time >= make_timestamp($1::BIGINT) AND cost > 0 GROUP BY ALL`;

/**
 * US dollars of the requests that began at `fromMs` (epoch milliseconds) or later. Rows that wait to be written are
 * in it. Rows that retention has deleted are not.
 */
export async function readSpent(
  database: Pick<Database, 'connect'>,
  usage: Pick<UsageStore, 'flush'>,
  fromMs: number,
): Promise<{ readonly endpoint: string; readonly requester: string; readonly cost: number }[]> {
  await usage.flush();
  const connection = await database.connect();
  try {
    const reader = await connection.runAndReadAll(SPENT, [BigInt(Math.floor(fromMs * 1_000))]);
    return reader.getRows().map(([endpoint, requester, cost]) => ({
      endpoint: String(endpoint),
      requester: String(requester),
      cost: Number(cost),
    }));
  } finally {
    connection.closeSync();
  }
}
