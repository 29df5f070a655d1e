// Batches whose budget cannot be held at once. They wait beside the line, not at a place of the target, and what
// waits for the same budget stays in line: a statement that is over its rate does not hold up anybody else.
import type { Budget } from '#core/call.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import type { Batch } from './batch.ts';
import { maxSpendOf } from './price.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface ParkingEvents {
  /** Its budget is held; it wants a place. */
  readonly onHeld: (batch: Batch) => void;
  readonly onRefused: (batch: Batch, error: ServingError) => void;
}

export class Parking {
  readonly #line: WaitingLine;
  readonly #events: ParkingEvents;
  readonly #parked = new Map<Budget, number>();
  #count = 0;

  constructor(line: WaitingLine, events: ParkingEvents) {
    this.#line = line;
    this.#events = events;
  }

  get count(): number {
    return this.#count;
  }

  /** Holds its budget back, if it has one; `parked`: an event will tell. Else why it is refused. */
  hold(batch: Batch): 'held' | 'parked' | ServingError {
    const { budget } = batch.terms;
    if (!budget || batch.isHeld) return 'held';
    try {
      const reservation = budget.tryReserve?.(maxSpendOf(batch));
      if (reservation) {
        batch.hold(reservation);
        return 'held';
      }
    } catch (thrown) {
      return toServingError(thrown);
    }
    void this.#park(batch, budget);
    return 'parked';
  }

  async #park(batch: Batch, budget: Budget): Promise<void> {
    this.#line.block(budget);
    this.#parked.set(budget, (this.#parked.get(budget) ?? 0) + 1);
    this.#count++;
    let error: ServingError | undefined;
    try {
      batch.hold(await budget.reserve(maxSpendOf(batch), batch.signal));
    } catch (thrown) {
      error = toServingError(thrown);
    }
    this.#count--;
    const others = (this.#parked.get(budget) ?? 1) - 1;
    if (others > 0) this.#parked.set(budget, others);
    else {
      this.#parked.delete(budget);
      this.#line.unblock(budget);
    }
    if (error) this.#events.onRefused(batch, error);
    else this.#events.onHeld(batch);
  }
}
