// Text as the recognisers read it: digits, letters, dashes and spaces of other scripts and widths as their ASCII
// ones, characters that cannot be seen left out, and where each character came from. Look-alike letters of other
// alphabets are not folded.

export interface Folded {
  readonly text: string;
  /** Offset in the original of what `text[index]` came from; `index` may be the length. */
  start(index: number): number;
  /** Offset in the original behind what `text[index - 1]` came from. */
  end(index: number): number;
  /** The first index that came from `offset` of the original or from behind it. */
  indexFrom(offset: number): number;
}

/** More invisible characters than this in a row part what stands around them: a stream of them must not be held back. */
export const LONGEST_INVISIBLE = 8;
const PARTING = '\u0000';

const INVISIBLE = /[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Me}]/u;
const DIGIT = /\p{Nd}/u;
const OTHER_NUMBER = /\p{No}/u;
const SPACE = /\p{Zs}/u;
const DASH = /[\p{Pd}\u2212\u2043]/u;

export function foldText(text: string): Folded {
  if (isAscii(text)) return { text, start: same, end: same, indexFrom: same };
  let folded = '';
  const starts: number[] = [];
  const ends: number[] = [];
  let invisible = 0;
  for (let at = 0; at < text.length; ) {
    const codePoint = text.codePointAt(at) ?? 0;
    const width = codePoint > 0xffff ? 2 : 1;
    let piece = codePoint < 0x80 ? text.charAt(at) : foldCodePoint(codePoint);
    invisible = piece === '' ? invisible + 1 : 0;
    if (invisible > LONGEST_INVISIBLE) {
      piece = PARTING;
      invisible = 0;
    }
    for (let unit = 0; unit < piece.length; unit++) {
      starts.push(at);
      ends.push(at + width);
    }
    folded += piece;
    at += width;
  }
  return {
    text: folded,
    start: (index) => starts[index] ?? text.length,
    end: (index) => (index === 0 ? 0 : (ends[index - 1] ?? text.length)),
    indexFrom: (offset) => {
      let low = 0;
      for (let high = starts.length; low < high; ) {
        const middle = (low + high) >> 1;
        if ((starts[middle] ?? 0) < offset) low = middle + 1;
        else high = middle;
      }
      return low;
    },
  };
}

const same = (index: number): number => index;

export function hasInvisible(text: string): boolean {
  return !isAscii(text) && INVISIBLE.test(text);
}

function isAscii(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 0x7f) return false;
  return true;
}

/** Bounded by the number of characters there are; a text uses few of them. */
const known = new Map<number, string>();

function foldCodePoint(codePoint: number): string {
  let piece = known.get(codePoint);
  if (piece === undefined) {
    piece = foldCharacter(codePoint, String.fromCodePoint(codePoint));
    known.set(codePoint, piece);
  }
  return piece;
}

function foldCharacter(codePoint: number, character: string): string {
  if (INVISIBLE.test(character)) return '';
  if (SPACE.test(character)) return ' ';
  if (DASH.test(character)) return '-';
  // A superscript two is an exponent or a footnote and not a digit of a number.
  if (OTHER_NUMBER.test(character)) return character;
  const plain = character.normalize('NFKC');
  if (plain.length === 1 && plain.charCodeAt(0) < 0x80) return plain;
  return DIGIT.test(character) ? digitOf(codePoint) : character;
}

/** Decimal digits of every script stand in rows of ten, from zero to nine. */
function digitOf(codePoint: number): string {
  let zero = codePoint;
  while (codePoint - zero < 50 && DIGIT.test(String.fromCodePoint(zero - 1))) zero--;
  return String((codePoint - zero) % 10);
}
