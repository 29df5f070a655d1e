// Rounds of one measurement over several subjects, taken in turns, so that what else runs on the machine meets all
// of them alike. A run that others have disturbed is taken again a few times, and counted when it stays so.
import { quantile } from '../scenario.ts';
import type { Loaded } from './tools.ts';

export interface Entrant {
  readonly name: string;
  run(): Promise<Loaded>;
}

export interface Rounds {
  readonly of: ReadonlyMap<string, readonly Loaded[]>;
  /** Runs taken again because of others. */
  readonly repeated: number;
}

const MOST_OTHERS = 0.25;
const MOST_REPEATS = 2;

export async function inTurns(rounds: number, entrants: readonly Entrant[]): Promise<Rounds> {
  const of = new Map<string, Loaded[]>(entrants.map(({ name }) => [name, []]));
  let repeated = 0;
  // A program that has just started is another one: it is measured once it has been asked for a while.
  for (const entrant of entrants) await entrant.run();
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another one: who comes after whom must not matter.
    for (let at = 0; at < entrants.length; at++) {
      const entrant = entrants[(at + round) % entrants.length];
      if (!entrant) continue;
      let loaded = await entrant.run();
      // On a machine that is never quiet it would go on for ever: as many repeats as rounds are enough.
      for (let tries = 0; tries < MOST_REPEATS && loaded.othersCores > MOST_OTHERS; tries++) {
        if (repeated >= rounds) break;
        repeated++;
        const again = await entrant.run();
        if (again.othersCores < loaded.othersCores) loaded = again;
      }
      of.get(entrant.name)?.push(loaded);
    }
  }
  return { of, repeated };
}

export type Field =
  | 'perSecond'
  | 'p50Ms'
  | 'p99Ms'
  | 'cpuMicrosPerRequest'
  | 'firstByteP50Ms'
  | 'residentMb'
  | 'othersCores';

export function median(rounds: Rounds, name: string, field: Field): number {
  return quantile(
    (rounds.of.get(name) ?? []).map((loaded) => loaded[field]),
    0.5,
  );
}

export function total(
  rounds: Rounds,
  field: 'failures' | 'refused' | 'unfinished' | 'missingEvents' | 'wrongStreams',
  name?: string,
): number {
  let sum = 0;
  for (const [each, runs] of rounds.of) {
    if (name !== undefined && each !== name) continue;
    for (const loaded of runs) sum += loaded[field];
  }
  return sum;
}
