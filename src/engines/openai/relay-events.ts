// The events of a stream of the OpenAI API on their way through: cut where events end, usage and failures noticed,
// all else untouched. Not here: connections (relay.ts), and streams that are read for their text (stream.ts).
import type { TokenUsage } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import { readUsageAt, usageObjectAt } from './relay-usage.ts';

const LONGEST_EVENT = 8 * 1024 * 1024;
const LF = Buffer.from('\n\n');
const CRLF = Buffer.from('\r\n\r\n');
const DATA = Buffer.from('data:');
const DONE = Buffer.from('[DONE]');
const ERROR = Buffer.from('"error"');
const FINISH = Buffer.from('"finish_reason"');
/** What a model writes is in one of these. */
const TEXTS = [Buffer.from('"content"'), Buffer.from('"text"'), Buffer.from('"arguments"')];
const QUOTE = 34;
const BACKSLASH = 92;

export interface EventsListener {
  /** Whole events, to be passed on. Valid only while the call lasts. */
  onEvents(events: Buffer): void;
  /** The data of an event that may be a failure; true when it is one, and nothing more is passed on. */
  isFailure(data: string): boolean;
}

export class RelayEvents {
  readonly #listener: EventsListener;
  readonly #hidesUsage: boolean;
  #held: Buffer | undefined;
  #delimiter: Buffer | undefined;
  #hasData = false;
  #isBroken = false;
  isDone = false;
  /** A choice has said why it ended. */
  isFinished = false;
  usage: TokenUsage | undefined;
  /** Characters that were written, roughly: as they stand in JSON. */
  textLength = 0;

  constructor(listener: EventsListener, hidesUsage: boolean) {
    this.#listener = listener;
    this.#hidesUsage = hidesUsage;
  }

  /** An event with data was passed on. */
  get hasData(): boolean {
    return this.#hasData;
  }

  /** False when what comes cannot be events. */
  feed(piece: Buffer): boolean {
    if (this.#isBroken || this.isDone) return true;
    const bytes = this.#held ? Buffer.concat([this.#held, piece]) : piece;
    const delimiter = (this.#delimiter ??= delimiterOf(bytes));
    let from = 0;
    let at = 0;
    if (delimiter) {
      for (let end = bytes.indexOf(delimiter, at); end >= 0; end = bytes.indexOf(delimiter, at)) {
        const next = end + delimiter.length;
        if (!this.#take(bytes, at, end)) {
          if (at > from) this.#give(bytes.subarray(from, at));
          from = next;
          if (this.#isBroken) return true;
        }
        at = next;
        if (this.isDone) break;
      }
    }
    if (at > from) this.#give(bytes.subarray(from, at));
    const left = this.isDone ? 0 : bytes.length - at;
    this.#held = left === 0 ? undefined : Buffer.from(bytes.subarray(at));
    return left <= LONGEST_EVENT;
  }

  /** The body is over: some servers leave out the blank line after the last event. */
  end(): void {
    const held = this.#held;
    if (!held || this.isDone || this.#isBroken) return;
    this.#delimiter ??= LF;
    this.feed(Buffer.from(this.#delimiter));
  }

  #give(events: Buffer): void {
    if (this.#hasData) this.#listener.onEvents(events);
  }

  /** Whether the event is passed on. */
  #take(bytes: Buffer, from: number, to: number): boolean {
    const start = dataAt(bytes, from, to);
    // A comment, or an event without data: before the first answer it would say that all is well.
    if (start < 0) return this.#hasData;
    // A view of its own, or every search would go on to the end of all that came with it.
    const data = bytes.subarray(start, to);
    if (startsWith(data, 0, DONE)) {
      this.#hasData = true;
      this.isDone = true;
      return true;
    }
    if (data.includes(ERROR) && this.#listener.isFailure(data.toString('utf8'))) {
      this.#isBroken = true;
      return false;
    }
    const usage = usageObjectAt(data);
    if (usage >= 0 && this.#takeUsage(data, usage)) return false;
    this.#hasData = true;
    this.#measure(data);
    return true;
  }

  /** True when the event holds nothing else and is to be withheld. */
  #takeUsage(data: Buffer, open: number): boolean {
    this.usage = readUsageAt(data, open) ?? this.usage;
    if (!this.#hidesUsage) return false;
    try {
      const chunk: unknown = JSON.parse(data.toString('utf8'));
      return isJsonObject(chunk) && Array.isArray(chunk.choices) && chunk.choices.length === 0;
    } catch {
      return false;
    }
  }

  #measure(data: Buffer): void {
    for (const name of TEXTS) {
      const at = data.indexOf(name);
      if (at >= 0) this.textLength += stringLengthAfter(data, at + name.length);
    }
    if (this.isFinished) return;
    const at = data.indexOf(FINISH);
    if (at >= 0) this.isFinished = stringLengthAfter(data, at + FINISH.length) > 0;
  }
}

/** By the first line end: a server keeps to one kind. */
function delimiterOf(bytes: Buffer): Buffer | undefined {
  const at = bytes.indexOf(10);
  if (at < 0) return undefined;
  return at > 0 && bytes[at - 1] === 13 ? CRLF : LF;
}

/** Where the data of an event begins, after a blank; -1 where it has none. */
function dataAt(bytes: Buffer, from: number, to: number): number {
  let at = from;
  while (at + DATA.length > to || !startsWith(bytes, at, DATA)) {
    const lineEnd = bytes.indexOf(10, at);
    if (lineEnd < 0 || lineEnd >= to) return -1;
    at = lineEnd + 1;
  }
  at += DATA.length;
  return bytes[at] === 32 ? at + 1 : at;
}

function startsWith(bytes: Buffer, at: number, mark: Buffer): boolean {
  for (let index = 0; index < mark.length; index++) if (bytes[at + index] !== mark[index]) return false;
  return true;
}

/** Length of the string after a colon; 0 where something else stands there. */
function stringLengthAfter(data: Buffer, from: number): number {
  let at = from;
  while (data[at] === 58 || data[at] === 32) at++;
  if (data[at] !== QUOTE) return 0;
  const begin = at + 1;
  for (at = begin; at < data.length && data[at] !== QUOTE; at++) if (data[at] === BACKSLASH) at++;
  return at - begin;
}
