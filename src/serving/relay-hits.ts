// Exact repeats of calls whose answers are kept: known by their bytes, answered without reading them. Who may ask
// and whether the answer is still kept is looked up each time; what is remembered here is only how it was written.
import type { Principal, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Authorize, Guards } from '#core/policies.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { CallRun } from './call-run.ts';
import { inputLength, outputLength } from './inputs.ts';
import type { Ledger, RowCall } from './ledger.ts';
import { keyOf, readsStore, scopeOf } from './look-up.ts';
import { NO_USAGE } from './question.ts';
import { isPlain } from './relay.ts';
import type { Resolver } from './resolver.ts';

export interface RelayHitsOptions {
  readonly resolver: Resolver;
  readonly authorize: Authorize;
  readonly guards?: Guards | undefined;
  readonly answers: AnswerStore;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly isDurable: boolean;
}

/** Who asks, in bytes that were seen before. What the bytes mean is remembered. */
export interface HitCall extends Omit<RowCall, 'endpoint' | 'task'> {
  readonly principal: Principal;
}

/** How an answer was written; the door that wrote it knows what the parts are. */
export interface Written {
  readonly parts: readonly string[];
  readonly headers: readonly string[];
}

export interface Hit extends Written {
  readonly inputs: number;
  readonly servedEntity: string;
}

interface Facts {
  readonly endpoint: string;
  readonly task: Task;
  readonly servedEntity: string;
  readonly fingerprint: string;
  readonly keys: readonly string[];
  /** When each answer was kept: another one under the same key was written another way. */
  readonly times: readonly number[];
  readonly inputCharacters: number;
  readonly outputCharacters: number;
}

interface Entry extends Facts, Hit {}

const MOST_ENTRIES = 20_000;
const MOST_CHARACTERS = 64 * 1024 * 1024;
/** A longer answer saves little: what it costs is sending it. */
const LONGEST = 256 * 1024;

export class RelayHits {
  readonly #options: RelayHitsOptions;
  /** By hash of the bytes, the one used last at the end. */
  readonly #entries = new Map<string, Entry>();
  readonly #expected = new Map<string, Facts | undefined>();
  #characters = 0;

  constructor(options: RelayHitsOptions) {
    this.#options = options;
  }

  /** The call of this id is about to be carried out, and its answer may be worth remembering. */
  expect(callId: string): void {
    this.#expected.set(callId, undefined);
  }

  /** Of serving: a call was answered. */
  note(run: CallRun): void {
    if (this.#expected.size === 0 || !this.#expected.has(run.call.id)) return;
    // A second call under the same id is one of several choices: they are not kept.
    const facts = this.#expected.get(run.call.id) ? undefined : this.#factsOf(run);
    if (facts) this.#expected.set(run.call.id, facts);
    else this.#expected.delete(run.call.id);
  }

  /** The answer to the expected call was written so. */
  keep(callId: string, hash: string, written: Written): void {
    const facts = this.#expected.get(callId);
    const length = written.parts.reduce((sum, part) => sum + part.length, 0);
    if (!facts || length > LONGEST) return;
    this.#remove(hash);
    this.#entries.set(hash, { ...facts, ...written, inputs: facts.keys.length });
    this.#characters += length;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= MOST_ENTRIES && this.#characters <= MOST_CHARACTERS) break;
      this.#remove(oldest);
    }
  }

  /** The expected call is over, however it ended. */
  forget(callId: string): void {
    this.#expected.delete(callId);
  }

  /** Undefined: the call takes the long way. With the answer goes its usage row. */
  find(hash: string, call: HitCall): Hit | undefined {
    const entry = this.#entries.get(hash);
    if (!entry) return undefined;
    const { resolver, authorize, guards, answers, ledger, clock, isDurable } = this.#options;
    if (isDurable) return undefined;
    const { endpoint: name, task } = entry;
    try {
      const { endpoint, target } = resolver.resolve(name, { task, random: clock.random() });
      authorize(call.principal, endpoint, 'query');
      const isSame = target.servedEntity === entry.servedEntity && target.fingerprint === entry.fingerprint;
      if (!isSame || !isPlain(endpoint) || guards?.guardOf(endpoint)) return undefined;
      for (const [at, key] of entry.keys.entries()) {
        if (answers.get(key)?.createdAtMs === entry.times[at]) continue;
        this.#remove(hash);
        return undefined;
      }
      this.#entries.delete(hash);
      this.#entries.set(hash, entry);
      const { inputs, inputCharacters, outputCharacters } = entry;
      ledger.add(rowCallOf(call, name, task), {
        target,
        endpointId: endpoint.id,
        startedAtMs: clock.now(),
        inputCount: inputs,
        cachedCount: inputs,
        attempts: 0,
        usage: NO_USAGE,
        cost: 0,
        error: undefined,
        inputCharacters,
        outputCharacters,
      });
      return entry;
    } catch {
      return undefined;
    }
  }

  #factsOf({ call, target, terms, items }: CallRun): Facts | undefined {
    if (!readsStore(call.cache) || call.servedEntity !== undefined || terms.guard) return undefined;
    if (target.isPersonal) return undefined;
    const scope = scopeOf(target, call, undefined);
    const keys = call.inputs.map((input) => keyOf(scope, input));
    const times: number[] = [];
    let inputCharacters = 0;
    let outputCharacters = 0;
    for (const [at, key] of keys.entries()) {
      const stored = this.#options.answers.get(key);
      const item = items[at];
      const input = call.inputs[at];
      if (!stored || !item?.ok || !input) return undefined;
      times.push(stored.createdAtMs);
      inputCharacters += inputLength(input);
      outputCharacters += outputLength(item.output);
    }
    const { endpoint, task } = call;
    const { servedEntity, fingerprint } = target;
    return { endpoint, task, servedEntity, fingerprint, keys, times, inputCharacters, outputCharacters };
  }

  #remove(hash: string): void {
    const entry = this.#entries.get(hash);
    if (!entry) return;
    this.#entries.delete(hash);
    for (const part of entry.parts) this.#characters -= part.length;
  }
}

function rowCallOf(call: HitCall, endpoint: string, task: Task): RowCall {
  const { id, principal, origin, client, clientRequestId } = call;
  return {
    ...{ id, principal, origin, endpoint, task },
    ...(client && { client }),
    ...(clientRequestId !== undefined && { clientRequestId }),
  };
}
