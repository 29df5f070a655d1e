// Usage rows and counts of requests of a gateway process, on their way to the primary: many at once, soon.
import type { UsageRow, UsageStore } from '#core/stores.ts';
import { encodeUsageRow } from '#storage/usage-encoding.ts';
import type { FromGateway, RequestCount } from './messages.ts';

/** What can be lost when a gateway is killed. */
const SEND_MS = 50;
/** About 200 kB: a larger message would hold up the primary. */
const MOST_ROWS = 512;

export class GatewayBooks implements UsageStore {
  readonly isDurable: boolean;
  readonly #send: (message: FromGateway) => void;
  #rows: UsageRow[] = [];
  readonly #requests = new Map<string, { route: string; status: number; count: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (message: FromGateway) => void, isDurable: boolean) {
    this.isDurable = isDurable;
    this.#send = send;
  }

  add(row: UsageRow): void {
    this.#rows.push(row);
    if (this.#rows.length >= MOST_ROWS) this.#sendNow();
    else this.#sendSoon();
  }

  count(route: string, status: number): void {
    const key = `${route} ${status}`;
    const known = this.#requests.get(key);
    if (known) known.count++;
    else this.#requests.set(key, { route, status, count: 1 });
    this.#sendSoon();
  }

  async flush(): Promise<void> {
    this.#sendNow();
  }

  #sendSoon(): void {
    this.#timer ??= setTimeout(() => this.#sendNow(), SEND_MS);
  }

  #sendNow(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const requests: RequestCount[] = [...this.#requests.values()];
    if (this.#rows.length === 0 && requests.length === 0) return;
    let lines = '';
    for (const row of this.#rows) lines += `${encodeUsageRow(row)}\n`;
    this.#rows = [];
    this.#requests.clear();
    this.#send({ type: 'books', lines, requests });
  }
}
