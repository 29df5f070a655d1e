// What the stub provider was asked and what it did: its own truth, to compare the product's books with.
export type Misbehaviour = 'rate429' | 'rate500' | 'rateCut' | 'rateMalformed' | 'rateSlow' | 'overParallel';

export interface Ledger {
  /** POST requests in all, misbehaved ones included. */
  readonly requests: number;
  /** By status sent; `0` where the connection was cut or the client went away before an answer. */
  readonly byStatus: Readonly<Record<string, number>>;
  readonly byMisbehaviour: Readonly<Partial<Record<Misbehaviour, number>>>;
  readonly byPath: Readonly<Record<string, number>>;
  readonly inFlight: number;
  readonly peakInFlight: number;
  /** TCP connections opened. */
  readonly connections: number;
  /** Inputs (embedding texts, prompts, last user messages) in all requests, repeats included. */
  readonly inputs: number;
  readonly distinctInputs: number;
  /** Requests whose client hung up before the answer was complete. */
  readonly aborted: number;
  /** Tokens in the `usage` of whole answers. */
  readonly promptTokens: number;
  readonly completionTokens: number;
}

export class LedgerBook {
  #requests = 0;
  #inFlight = 0;
  #peakInFlight = 0;
  #inputs = 0;
  #aborted = 0;
  #connections = 0;
  #promptTokens = 0;
  #completionTokens = 0;
  readonly #byStatus = new Map<number, number>();
  readonly #byMisbehaviour = new Map<Misbehaviour, number>();
  readonly #byPath = new Map<string, number>();
  readonly #seen = new Set<string>();

  get inFlight(): number {
    return this.#inFlight;
  }

  begin(path: string): void {
    this.#requests++;
    this.#inFlight++;
    this.#peakInFlight = Math.max(this.#peakInFlight, this.#inFlight);
    add(this.#byPath, path);
  }

  inputs(texts: readonly string[]): void {
    this.#inputs += texts.length;
    for (const text of texts) this.#seen.add(text);
  }

  misbehave(kind: Misbehaviour): void {
    add(this.#byMisbehaviour, kind);
  }

  tokens(promptTokens: number, completionTokens: number): void {
    this.#promptTokens += promptTokens;
    this.#completionTokens += completionTokens;
  }

  connect(): void {
    this.#connections++;
  }

  /** Once per `begin`. */
  end(status: number, isAborted: boolean): void {
    this.#inFlight--;
    if (isAborted) this.#aborted++;
    add(this.#byStatus, status);
  }

  reset(): void {
    this.#requests =
      this.#inputs =
      this.#aborted =
      this.#connections =
      this.#promptTokens =
      this.#completionTokens =
        0;
    this.#peakInFlight = this.#inFlight;
    for (const counts of [this.#byStatus, this.#byMisbehaviour, this.#byPath, this.#seen]) counts.clear();
  }

  read(): Ledger {
    return {
      requests: this.#requests,
      byStatus: Object.fromEntries(this.#byStatus),
      byMisbehaviour: Object.fromEntries(this.#byMisbehaviour),
      byPath: Object.fromEntries(this.#byPath),
      inFlight: this.#inFlight,
      peakInFlight: this.#peakInFlight,
      connections: this.#connections,
      inputs: this.#inputs,
      distinctInputs: this.#seen.size,
      aborted: this.#aborted,
      promptTokens: this.#promptTokens,
      completionTokens: this.#completionTokens,
    };
  }
}

function add<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
