// The stores of one data directory, opened and closed together: registry documents, secrets, prices, answers, usage.
import { join } from 'node:path';
import type { Settings } from '#config/settings.ts';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import { openAnswerStore } from '#storage/answer-store.ts';
import type { Database } from '#storage/database.ts';
import { openPriceStore, type PriceStore } from '#storage/price-store.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { type Retention, startRetention } from '#storage/retention.ts';
import { openSecretStore, type SecretStore } from '#storage/secret-store.ts';
import { ServedEntityStore } from '#storage/served-entity-store.ts';
import { type DuckDbUsageStore, openUsageStore } from '#storage/usage-store.ts';

export interface Stores {
  readonly documents: DuckDbRegistryStore;
  readonly secrets: SecretStore;
  readonly prices: PriceStore;
  readonly answers: Awaited<ReturnType<typeof openAnswerStore>>;
  readonly usage: DuckDbUsageStore;
  readonly servedEntities: ServedEntityStore;
  readonly retention: Retention;
  /** Writes what is queued. The database is closed by its owner. */
  close(): Promise<void>;
}

export async function openStores(options: {
  readonly database: Database;
  readonly settings: Settings;
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly log: Log;
}): Promise<Stores> {
  const { database, settings, env, clock, log } = options;
  const { dataDir } = settings;
  const fileOf = (name: string) => (dataDir === null ? null : join(dataDir, name));
  const documents = new DuckDbRegistryStore(database.system);
  const secrets = await openSecretStore({ store: documents, dataDir, env, clock });
  const prices = await openPriceStore(await database.connect());
  const servedEntities = new ServedEntityStore(await database.connect());
  const answers = await openAnswerStore({ ...settings.answers, path: fileOf('answers.lmdb'), clock, log });
  const { isDurable, retentionMs } = settings.usage;
  const usage = await openUsageStore({
    connection: await database.connect(),
    journalDir: fileOf('journal'),
    ...{ clock, log, isDurable },
  });
  const retention = startRetention({ connection: await database.connect(), retentionMs, clock, log });
  return {
    ...{ documents, secrets, prices, answers, usage, servedEntities, retention },
    close: async () => {
      await retention.close();
      await usage.close();
      await servedEntities.close();
      await answers.close();
    },
  };
}
