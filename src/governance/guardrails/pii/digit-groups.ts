// The numbers of a text, read once for all recognisers: runs of digits, and what joins neighbouring ones into a
// longer number such as `4111 1111 1111 1111`.

export interface DigitGroup {
  readonly start: number;
  readonly end: number;
}

/** What a recogniser of numbers gets to see: folded text and its groups of digits, in order. */
export interface Numbers {
  readonly text: string;
  readonly groups: readonly DigitGroup[];
}

const LONGEST_JOINER = 3;
const JOINER = /^[ \-./()_]+$/;

export function readNumbers(text: string): Numbers {
  const groups: DigitGroup[] = [];
  for (const match of text.matchAll(/\d+/g)) {
    groups.push({ start: match.index, end: match.index + match[0].length });
  }
  return { text, groups };
}

export const lengthOf = ({ start, end }: DigitGroup): number => end - start;

/** What stands between group `index` and the next one, where it can join them; else undefined. */
export function joinerAfter({ text, groups }: Numbers, index: number): string | undefined {
  const left = groups[index];
  const right = groups[index + 1];
  if (!left || !right || right.start - left.end > LONGEST_JOINER) return undefined;
  const joiner = text.slice(left.end, right.start);
  return JOINER.test(joiner) ? joiner : undefined;
}

export interface Shaped {
  readonly start: number;
  readonly end: number;
  readonly digits: string;
  /** What joins the groups; the same everywhere. Empty for one group. */
  readonly joiner: string;
}

/**
 * Groups of exactly these lengths from `index` on, joined by one and the same character; undefined where the row
 * of groups goes on with it on either side.
 */
export function readShape(numbers: Numbers, index: number, lengths: readonly number[]): Shaped | undefined {
  const { text, groups } = numbers;
  const first = groups[index];
  const last = groups[index + lengths.length - 1];
  if (!first || !last) return undefined;
  const joiner = lengths.length === 1 ? '' : joinerAfter(numbers, index);
  if (joiner === undefined || joiner.length > 1) return undefined;
  let digits = '';
  for (const [offset, length] of lengths.entries()) {
    const group = groups[index + offset];
    if (!group || lengthOf(group) !== length) return undefined;
    if (offset > 0 && joinerAfter(numbers, index + offset - 1) !== joiner) return undefined;
    digits += text.slice(group.start, group.end);
  }
  if (joiner !== '') {
    if (joinerAfter(numbers, index - 1) === joiner) return undefined;
    if (joinerAfter(numbers, index + lengths.length - 1) === joiner) return undefined;
  }
  return { start: first.start, end: last.end, digits, joiner };
}
