// Walks over the members of a JSON object, without building anything: each name, and where its value stands. The text
// is the bytes as characters of one byte each, as V8 looks through a string quicker than through a buffer.
// Whatever is unusual ends the walk: a reader that takes every liberty of JSON has to look at such a body instead.

/** `value` begins at `from` and ends before `to`; `first` is its first byte. False ends the walk. */
export type Visit = (name: string, from: number, to: number, first: number) => boolean;

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const OPEN_LIST = 91;
const BACKSLASH = 92;
const CLOSE_LIST = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;
const LONGEST_NAME = 64;
const LONGEST_LITERAL = 64;
/** Kinds of the open brackets are kept as bits. */
const DEEPEST = 30;
/** Place of the closing brace of the object; -1 for what is no object, or an unusual one. */
export function walkMembers(text: string, visit: Visit): number {
  let at = skipBlanks(text, 0);
  if (text.charCodeAt(at) !== OPEN_OBJECT) return -1;
  for (;;) {
    at = skipBlanks(text, at + 1);
    const nameAt = at + 1;
    if (text.charCodeAt(at) !== QUOTE) return -1;
    at = endOfName(text, nameAt);
    if (at < 0) return -1;
    const name = text.slice(nameAt, at);
    at = skipBlanks(text, at + 1);
    if (text.charCodeAt(at) !== COLON) return -1;
    at = skipBlanks(text, at + 1);
    const first = text.charCodeAt(at);
    const to = endOfValue(text, at, first);
    if (to < 0 || !visit(name, at, to, first)) return -1;
    at = skipBlanks(text, to);
    if (text.charCodeAt(at) === COMMA) continue;
    if (text.charCodeAt(at) !== CLOSE_OBJECT || skipBlanks(text, at + 1) < text.length) return -1;
    return at;
  }
}

function skipBlanks(text: string, from: number): number {
  let at = from;
  for (;;) {
    const byte = text.charCodeAt(at);
    if (byte !== 32 && byte !== 10 && byte !== 13 && byte !== 9) return at;
    at++;
  }
}

/** Place of the closing quote of a plain name; an escaped one could be spelled in two ways. */
function endOfName(text: string, from: number): number {
  for (let at = from; at < from + LONGEST_NAME; at++) {
    const byte = text.charCodeAt(at);
    if (byte === QUOTE) return at;
    if (byte < 32 || byte === BACKSLASH || byte > 126) return -1;
  }
  return -1;
}

function endOfValue(text: string, at: number, first: number): number {
  if (first === QUOTE) return endOfString(text, at + 1);
  if (first === OPEN_OBJECT || first === OPEN_LIST) return endOfNested(text, at);
  return endOfLiteral(text, at);
}

/** After the closing quote. `from`: after the opening one. */
function endOfString(text: string, from: number): number {
  for (let quote = text.indexOf('"', from); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    // Characters before `from` belong to the opening quote.
    while (quote - 1 - slashes >= from && text.charCodeAt(quote - 1 - slashes) === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return quote + 1;
  }
  return -1;
}

function endOfNested(text: string, from: number): number {
  let depth = 0;
  let kinds = 0;
  for (let at = from; at < text.length; ) {
    const byte = text.charCodeAt(at);
    if (byte === QUOTE) {
      at = endOfString(text, at + 1);
      if (at < 0) return -1;
      continue;
    }
    at++;
    if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
      if (++depth > DEEPEST) return -1;
      kinds = (kinds << 1) | (byte === OPEN_LIST ? 1 : 0);
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
      if ((kinds & 1) !== (byte === CLOSE_LIST ? 1 : 0)) return -1;
      kinds >>= 1;
      if (--depth === 0) return at;
    }
  }
  return -1;
}

/** Numbers, true, false, null: their characters, not their order. */
function endOfLiteral(text: string, from: number): number {
  let at = from;
  for (; at < from + LONGEST_LITERAL; at++) {
    const byte = text.charCodeAt(at);
    const isDigit = byte >= 48 && byte <= 57;
    const isLetter = (byte >= 97 && byte <= 122) || byte === 69;
    if (!isDigit && !isLetter && byte !== 45 && byte !== 43 && byte !== 46) break;
  }
  return at === from || at === from + LONGEST_LITERAL ? -1 : at;
}
