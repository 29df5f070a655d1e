// Reads the head of an HTTP/1.1 answer out of the bytes it came in. Strict on purpose: whatever two readers could
// understand differently (bare line feeds, folded lines, lengths given twice) is refused, not guessed.
import { malformed, WireFailure } from './failure.ts';

export const MAX_HEAD_BYTES = 32 * 1024;
const MAX_HEADER_LINES = 128;
/** Lengths up to 10^15 are exact as numbers. */
const MAX_LENGTH_DIGITS = 15;

/** How the body of an answer ends. */
export type Framing = 'none' | 'length' | 'chunked' | 'close';

export class Head {
  readonly status: number;
  readonly framing: Framing;
  /** Bytes of the body; 0 unless `framing` is `length`. */
  readonly length: number;
  /** The connection may carry another exchange afterwards. */
  readonly isReusable: boolean;
  /** What `Keep-Alive: timeout=` says; undefined where it says nothing. */
  readonly keepAliveMs: number | undefined;
  /** Empty where there is none. */
  readonly contentType: string;
  readonly contentEncoding: string;
  readonly #bytes: Buffer;
  readonly #from: number;
  readonly #to: number;

  /** `bytes[from..to)`: the lines after the status line. */
  constructor(facts: HeadFacts, bytes: Buffer, from: number, to: number) {
    const { status, isChunked, length, isKept } = facts;
    const framing: Framing = hasNoBody(status)
      ? 'none'
      : isChunked
        ? 'chunked'
        : length < 0
          ? 'close'
          : length === 0
            ? 'none'
            : 'length';
    this.status = status;
    this.framing = framing;
    this.length = framing === 'length' ? length : 0;
    this.isReusable = isKept && framing !== 'close';
    this.keepAliveMs = facts.keepAliveMs;
    this.contentType = facts.contentType;
    this.contentEncoding = facts.contentEncoding;
    this.#bytes = bytes;
    this.#from = from;
    this.#to = to;
  }

  /** Lower-case names; a header that is there several times has its values joined by commas. Only while its bytes last. */
  headers(): Record<string, string> {
    return readHeaders(this.#bytes, this.#from, this.#to);
  }
}

interface HeadFacts {
  readonly status: number;
  readonly isChunked: boolean;
  /** -1: not given. */
  readonly length: number;
  readonly isKept: boolean;
  readonly keepAliveMs: number | undefined;
  readonly contentType: string;
  readonly contentEncoding: string;
}

function hasNoBody(status: number): boolean {
  return status < 200 || status === 204 || status === 304;
}

const CR = 13;
const LF = 10;
const COLON = 58;
const SPACE = 32;
const TAB = 9;

/** 1 for the characters of a token (names of headers). */
const IS_TOKEN = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  IS_TOKEN[character.charCodeAt(0)] = 1;
}
/** 1 for what may stand in a value: visible characters, spaces, tabs, and bytes above 127. */
const IS_VALUE = new Uint8Array(256).fill(1, 32).fill(0, 127, 128);
IS_VALUE[TAB] = 1;

/** Whether a line of a head, `at` being its first byte, is well-formed; gives where its colon is. */
export function colonOf(bytes: Uint8Array, at: number, end: number): number {
  let colon = at;
  while (colon < end && IS_TOKEN[bytes[colon] as number] === 1) colon++;
  if (colon === at || colon >= end || bytes[colon] !== COLON) {
    const first = bytes[at];
    throw malformed(
      first === SPACE || first === TAB ? 'a folded header line' : 'a header line without a proper name',
    );
  }
  for (let index = colon + 1; index < end; index++) {
    if (IS_VALUE[bytes[index] as number] === 0) throw malformed('a control character in a header');
  }
  return colon;
}

/** `bytes[from..to)` is the head with the empty line at its end. Throws WireFailure. */
export function parseHead(bytes: Buffer, from: number, to: number): Head {
  const status = parseStatus(bytes, from, to);
  const isOldVersion = bytes[from + 7] === 48;
  let at = endOfLine(bytes, from + 12, to) + 2;
  let length = -1;
  let isChunked = false;
  let connection = '';
  let keepAlive = '';
  let contentType = '';
  let contentEncoding = '';
  const firstLine = at;
  for (let lines = 0; at < to - 2; lines++) {
    if (lines >= MAX_HEADER_LINES)
      throw new WireFailure('too-large', `more than ${MAX_HEADER_LINES} headers`);
    const end = endOfLine(bytes, at, to);
    const colon = colonOf(bytes, at, end);
    // Most lines mean nothing here; the length of their name tells.
    switch (colon - at) {
      case 10:
        if (isNamed(bytes, at, 'connection')) connection += `,${textAfter(bytes, colon, end)}`;
        else if (isNamed(bytes, at, 'keep-alive')) keepAlive = textAfter(bytes, colon, end);
        break;
      case 12:
        if (isNamed(bytes, at, 'content-type')) contentType = textAfter(bytes, colon, end);
        break;
      case 14:
        if (!isNamed(bytes, at, 'content-length')) break;
        if (length >= 0) throw malformed('two Content-Length headers');
        length = parseLength(textAfter(bytes, colon, end));
        break;
      case 16:
        if (isNamed(bytes, at, 'content-encoding')) contentEncoding = textAfter(bytes, colon, end);
        break;
      case 17:
        if (!isNamed(bytes, at, 'transfer-encoding')) break;
        if (isChunked) throw malformed('two Transfer-Encoding headers');
        if (textAfter(bytes, colon, end).toLowerCase() !== 'chunked') {
          throw malformed('a Transfer-Encoding other than chunked');
        }
        isChunked = true;
        break;
    }
    at = end + 2;
  }
  if (isChunked && length >= 0) throw malformed('both Content-Length and Transfer-Encoding');
  if (isChunked && isOldVersion) throw malformed('Transfer-Encoding in an answer of HTTP/1.0');
  const isKept = isOldVersion ? hasToken(connection, 'keep-alive') : !hasToken(connection, 'close');
  const keepAliveMs = parseKeepAlive(keepAlive);
  const facts = { status, isChunked, length, isKept, keepAliveMs, contentType, contentEncoding };
  return new Head(facts, bytes, firstLine, to);
}

function parseStatus(bytes: Buffer, from: number, to: number): number {
  const hundreds = (bytes[from + 9] ?? 0) - 48;
  const tens = (bytes[from + 10] ?? 0) - 48;
  const ones = (bytes[from + 11] ?? 0) - 48;
  const minor = bytes[from + 7];
  const isGood =
    to - from >= 14 &&
    bytes.toString('latin1', from, from + 7) === 'HTTP/1.' &&
    (minor === 48 || minor === 49) &&
    bytes[from + 8] === SPACE &&
    hundreds >= 1 &&
    hundreds <= 9 &&
    tens >= 0 &&
    tens <= 9 &&
    ones >= 0 &&
    ones <= 9;
  const after = bytes[from + 12];
  if (!isGood || (after !== SPACE && after !== CR)) throw malformed('a status line that is none');
  const end = endOfLine(bytes, from + 12, to);
  for (let index = from + 12; index < end; index++) {
    if (IS_VALUE[bytes[index] as number] === 0) throw malformed('a control character in the status line');
  }
  return hundreds * 100 + tens * 10 + ones;
}

/** Index of the carriage return that ends the line. */
function endOfLine(bytes: Buffer, at: number, to: number): number {
  for (let index = at; index < to; index++) {
    const byte = bytes[index];
    if (byte === LF) throw malformed('a line that ends without a carriage return');
    if (byte !== CR) continue;
    if (bytes[index + 1] !== LF) throw malformed('a carriage return inside a line');
    return index;
  }
  throw malformed('a line without end');
}

function isNamed(bytes: Buffer, at: number, name: string): boolean {
  for (let index = 0; index < name.length; index++) {
    if (((bytes[at + index] as number) | 32) !== name.charCodeAt(index)) return false;
  }
  return true;
}

function textAfter(bytes: Buffer, colon: number, end: number): string {
  let first = colon + 1;
  let last = end;
  while (first < last && isBlank(bytes[first])) first++;
  while (last > first && isBlank(bytes[last - 1])) last--;
  return bytes.toString('latin1', first, last);
}

const isBlank = (byte: number | undefined): boolean => byte === SPACE || byte === TAB;

function parseLength(value: string): number {
  if (!/^\d+$/.test(value) || value.length > MAX_LENGTH_DIGITS) {
    throw malformed('a Content-Length that is no number');
  }
  return Number(value);
}

function hasToken(list: string, token: string): boolean {
  if (list === '') return false;
  return list.split(',').some((item) => item.trim().toLowerCase() === token);
}

function parseKeepAlive(value: string): number | undefined {
  if (value === '') return undefined;
  const seconds = /(?:^|[,;\s])timeout=(\d{1,6})/i.exec(value)?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1_000;
}

function readHeaders(bytes: Buffer, from: number, to: number): Record<string, string> {
  const headers: Record<string, string> = Object.create(null);
  for (let at = from; at < to - 2; ) {
    const end = endOfLine(bytes, at, to);
    const colon = colonOf(bytes, at, end);
    const name = bytes.toString('latin1', at, colon).toLowerCase();
    const value = textAfter(bytes, colon, end);
    const before = headers[name];
    headers[name] = before === undefined ? value : `${before}, ${value}`;
    at = end + 2;
  }
  return headers;
}
