// The owner's side of limits that several processes share: one set of gauges here, leases of whole calls, tokens and
// nanodollars to the workers. The sum of what workers admit never exceeds a limit; a lease that is not used comes
// back. The worker's side is leased-meters.ts; the channel between them is somebody else's.
import type { Origin, Reservation } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import { LeaseAccount } from './lease-account.ts';
import {
  fromJson,
  type LeaseAnswer,
  type LeaseGrant,
  type LeaseNotice,
  type LeaseRequest,
  type LeaseWish,
  type MeterName,
  toErrorMessage,
  toJson,
} from './lease-messages.ts';
import type { Limits } from './limits.ts';
import type { Meter } from './meter.ts';

export { type LeaseChannel, LeasedMeters } from './leased-meters.ts';

/**
 * How long a worker may take from a lease. What was taken counts from its report on, at most this much later than
 * it was used: a shorter time uses more of the limits, a longer one asks the owner less often.
 */
const LEASE_MS = 1_000;

export interface LeaseOwnerOptions {
  readonly limits: Limits;
  /** The endpoint as the registry has it now; undefined: there is none. */
  readonly findEndpoint: (name: string) => Endpoint | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** One worker's side of the owner: what its messages are handed to, in the order in which they were sent. */
export interface LeaseConnection {
  request(message: Json): Promise<Json>;
  notify(message: Json): void;
  /** The worker has ended. What it held is counted as used, as nobody knows better. */
  close(): void;
}

export class LeaseOwner {
  readonly #options: LeaseOwnerOptions;
  #lastId = 0;

  constructor(options: LeaseOwnerOptions) {
    this.#options = options;
  }

  connect(): LeaseConnection {
    return new WorkerLeases(this.#options, () => ++this.#lastId);
  }
}

interface Asked {
  readonly controller: AbortController;
  reservation?: Reservation;
  readonly spend: Extract<LeaseRequest, { type: 'reserve' }>['spend'];
}

class WorkerLeases implements LeaseConnection {
  readonly #options: LeaseOwnerOptions;
  readonly #nextId: () => number;
  readonly #asked = new Map<number, Asked>();
  readonly #leases = new Map<number, LeaseAccount>();
  #isClosed = false;

  constructor(options: LeaseOwnerOptions, nextId: () => number) {
    this.#options = options;
    this.#nextId = nextId;
  }

  /** Never rejects: a refusal is an answer. */
  async request(message: Json): Promise<Json> {
    try {
      return toJson(await this.#answer(fromJson<LeaseRequest>(message)));
    } catch (thrown) {
      return toJson({ error: toErrorMessage(toServingError(thrown)) });
    }
  }

  notify(message: Json): void {
    const notice = fromJson<LeaseNotice>(message);
    if (this.#isClosed) return;
    if (notice.type === 'reports') {
      for (const report of notice.reports) {
        this.#leases.get(report.id)?.report(report);
        if (report.isOver) this.#leases.delete(report.id);
      }
      return;
    }
    const asked = this.#asked.get(notice.id);
    if (notice.type === 'cancel') {
      asked?.controller.abort();
    } else {
      asked?.reservation?.settle(notice.actual);
      this.#asked.delete(notice.id);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#asked.size + this.#leases.size > 0) {
      const counts = { reservations: this.#asked.size, leases: this.#leases.size };
      this.#options.log.warn(counts, 'a worker ended with limits on lease; they count as used');
    }
    for (const { controller, reservation, spend } of this.#asked.values()) {
      if (reservation) reservation.settle(spend);
      else controller.abort();
    }
    this.#asked.clear();
    for (const account of this.#leases.values()) account.lose();
    this.#leases.clear();
  }

  async #answer(request: LeaseRequest): Promise<LeaseAnswer> {
    if (this.#isClosed) throw new ServingError('CANCELLED', 'The worker has ended.');
    const meter = this.#meterOf(request.meter);
    if (request.type === 'lease') return meter ? this.#leaseOf(meter, request.wish) : {};
    const asked: Asked = { controller: new AbortController(), spend: request.spend };
    this.#asked.set(request.id, asked);
    try {
      const reservation = await meter?.reserve(request.spend, asked.controller.signal);
      if (this.#isClosed) {
        reservation?.settle({ calls: 0, tokens: 0, cost: 0 });
        throw new ServingError('CANCELLED', 'The worker has ended.');
      }
      if (reservation) asked.reservation = reservation;
    } catch (error) {
      this.#asked.delete(request.id);
      throw error;
    }
    return meter && request.wish ? this.#leaseOf(meter, request.wish) : {};
  }

  #leaseOf(meter: Meter, wish: LeaseWish): { readonly lease?: LeaseGrant } {
    const account = LeaseAccount.open(meter, wish);
    if (!account) return {};
    const id = this.#nextId();
    this.#leases.set(id, account);
    const expiresAtMs = Math.min(this.#options.clock.now() + LEASE_MS, account.latestEndMs);
    return { lease: { id, expiresAtMs, ...account.amounts } };
  }

  #meterOf({ principal, isPatient, endpoint: name }: MeterName): Meter | undefined {
    const endpoint = this.#options.findEndpoint(name);
    if (!endpoint) throw new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${name}' any more.`);
    const origin: Origin = isPatient ? 'sql' : 'http';
    return this.#options.limits.meterOf({ principal, origin }, endpoint);
  }
}
