// Credit and debit cards: prefix and length of a brand, and the Luhn check. Written in one run or in groups of at
// least four digits first, three inside and one at the end, joined by a space, dash, dot or underscore.
import { closesAt, contextWords, hasBefore, opensAt } from './boundaries.ts';
import { hasLuhn } from './checksums.ts';
import { joinerAfter, lengthOf, type Numbers } from './digit-groups.ts';
import type { AddFinding } from './finding.ts';

const SIXTEEN_UP = [16, 17, 18, 19];

/** Inclusive ranges of the first digits, and the lengths that go with them. */
// biome-ignore format: one brand a line
const BRANDS: readonly (readonly [prefixes: readonly (readonly [from: number, to: number])[], lengths: readonly number[]])[] = [
  [[[4, 4]], [13, 16, 19]], // Visa
  [[[51, 55], [2221, 2720]], [16]], // Mastercard
  [[[34, 34], [37, 37]], [15]], // American Express
  [[[300, 305], [3095, 3095], [36, 36], [38, 39]], [14, 16, 17, 18, 19]], // Diners Club
  [[[6011, 6011], [644, 649], [65, 65]], SIXTEEN_UP], // Discover
  [[[3528, 3589]], SIXTEEN_UP], // JCB
  [[[62, 62], [81, 81]], SIXTEEN_UP], // UnionPay
  [[[2200, 2204]], SIXTEEN_UP], // Mir
  [[[60, 60], [82, 82], [508, 508]], [16]], // RuPay
  [[[9792, 9792]], [16]], // Troy
  [[[5018, 5018], [5020, 5020], [5038, 5038], [5893, 5893], [6304, 6304], [6759, 6759], [6761, 6763]], [12, 13, 14, 15, 16, 17, 18, 19]], // Maestro
];

/** For each four first digits the lengths of a card, one bit each. */
const LENGTHS = new Uint32Array(10_000);
for (const [prefixes, lengths] of BRANDS) {
  const bits = lengths.reduce((all, length) => all | (1 << length), 0);
  for (const [from, to] of prefixes) {
    const scale = 10 ** (4 - String(from).length);
    for (let prefix = from * scale; prefix < (to + 1) * scale; prefix++) {
      LENGTHS[prefix] = (LENGTHS[prefix] ?? 0) | bits;
    }
  }
}

const LONGEST = 19;
/** Shorter numbers are rarely cards: barcodes and order numbers pass the check one time in ten. */
const NEEDS_WORD_BELOW = 14;
const JOINER = /^ ?[-. _] ?$/;
const WORDS = contextWords('cards?|credit|debit|visa|maestro|karte|kreditkarte|carte|tarjeta|carta|pan|cc');

export function findCards(numbers: Numbers, add: AddFinding): void {
  const { text, groups } = numbers;
  for (const [index, first] of groups.entries()) {
    if (lengthOf(first) < 4 || lengthOf(first) > LONGEST || !opensAt(text, first.start)) continue;
    const lengths = LENGTHS[Number(text.slice(first.start, first.start + 4))] ?? 0;
    if (lengths === 0) continue;
    let digits = '';
    let end = -1;
    for (let at = index; at < groups.length; at++) {
      const group = groups[at];
      if (!group || digits.length + lengthOf(group) > LONGEST) break;
      digits += text.slice(group.start, group.end);
      if ((lengths >> digits.length) & 1 && hasLuhn(digits) && closesAt(text, group.end)) {
        if (digits.length >= NEEDS_WORD_BELOW || hasBefore(text, first.start, WORDS)) end = group.end;
      }
      if (lengthOf(group) < 3) break;
      const joiner = joinerAfter(numbers, at);
      if (joiner === undefined || !JOINER.test(joiner)) break;
    }
    if (end > 0) add('CREDIT_CARD', first.start, end, 3);
  }
}
