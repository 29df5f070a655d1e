// Where a word or number begins and ends in folded text. Scripts written without spaces (Han, Thai, ...) do not
// join: a number right after such a letter stands alone.

const JOINING = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{N}]/u;

export function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

export function isAsciiLetter(code: number): boolean {
  const lower = code | 32;
  return lower >= 97 && lower <= 122;
}

export function isAlphanumeric(code: number): boolean {
  return isDigit(code) || isAsciiLetter(code);
}

/** Does a character with this code (NaN outside the text) join on to a letter or digit beside it? */
export function isJoining(code: number): boolean {
  if (!(code >= 0)) return false;
  if (code < 0x80) return isAlphanumeric(code) || code === 95;
  return JOINING.test(String.fromCharCode(code));
}

/** Nothing before `start` makes what stands there the rest of a word or of a decimal fraction. */
export function opensAt(text: string, start: number): boolean {
  const before = text.charCodeAt(start - 1);
  if (isJoining(before)) return false;
  if (before === 46) return !isDigit(text.charCodeAt(start - 2));
  // `0,41` is a fraction in many countries, `7,41` may be two columns.
  if (before === 44) return text.charCodeAt(start - 2) !== 48 || isDigit(text.charCodeAt(start - 3));
  return true;
}

/** Nothing from `end` on makes it go on. Looks at two characters. */
export function closesAt(text: string, end: number): boolean {
  const after = text.charCodeAt(end);
  if (isJoining(after)) return false;
  return after !== 46 || !isDigit(text.charCodeAt(end + 1));
}

/** How far before a number a word counts that says what it is. */
const CONTEXT_LENGTH = 48;

/** Words in a row of alternatives, in any case, not inside other words; a plural `s` does no harm. */
export function contextWords(alternatives: string): RegExp {
  return new RegExp(`(?<![a-z])(?:${alternatives})(?![a-rt-z])`, 'i');
}

export function hasBefore(text: string, start: number, words: RegExp): boolean {
  return words.test(text.slice(Math.max(0, start - CONTEXT_LENGTH), start));
}
