// Telephone numbers: international with `+` or `00` and a country code that exists, North American ones by their
// form, and any other number where a word before it says that it is one. A plain number is none.
import { closesAt, contextWords, hasBefore, isDigit, opensAt } from './boundaries.ts';
import { joinerAfter, lengthOf, type Numbers, readShape } from './digit-groups.ts';
import type { AddFinding } from './finding.ts';

/** Country codes of ITU-T E.164 in use. */
const COUNTRY_CODE =
  /^(?:1|7|2[07]|2[1-69]\d|3[0-469]|3[578]\d|4[013-9]|42[013]|5[1-8]|50\d|59\d|6[0-6]|6[7-9]\d|8[1246]|80[08]|85\d|87[08]|88\d|9[0-58]|96[0-8]|97[0-79]|99[2-68])/;
const NORTH_AMERICAN = /^[2-9]\d{2}[2-9]\d{6}$/;
const WORDS = contextWords(
  'phones?|telephone|tel|call|mobile|mob|cell|cellphone|fax|sms|text me|whatsapp|hotline|ring|telefon|telefonnummer|handy|rufnummer|anrufen|mobil|t\u00e9l\u00e9phone|t\u00e9l|portable|appelez|tel\u00e9fono|m\u00f3vil|telefono|cellulare|telefoon|phone[_ ]?(?:no|number)',
);
const DATE = /^(?:(?:19|20)\d{2}([-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2(?:19|20)\d{2})$/;

export function findPhones(numbers: Numbers, add: AddFinding): void {
  const hasWords = WORDS.test(numbers.text);
  for (const [index, group] of numbers.groups.entries()) {
    if (lengthOf(group) > 17) continue;
    findInternational(numbers, index, add);
    findNorthAmerican(numbers, index, add);
    if (hasWords && opensAt(numbers.text, group.start) && hasBefore(numbers.text, group.start, WORDS))
      findNamed(numbers, index, add);
  }
}

function findInternational(numbers: Numbers, index: number, add: AddFinding): void {
  const { text, groups } = numbers;
  const group = groups[index];
  if (!group) return;
  const start = plusBefore(text, group.start);
  const isPlus = start >= 0;
  const isZeros = !isPlus && text.startsWith('00', group.start) && opensAt(text, group.start);
  if (!isPlus && !isZeros) return;
  for (const { digits, end, count } of growing(numbers, index, isPlus ? 15 : 17).reverse()) {
    const number = isPlus ? digits : digits.slice(2);
    // A signed number is not told from a short one without spaces.
    if (number.length < (count === 1 ? 9 : 8) || !COUNTRY_CODE.test(number)) continue;
    // Zeros and digits without a space are a serial number unless somebody says otherwise.
    if (isZeros && count === 1 && !hasBefore(text, group.start, WORDS)) continue;
    if (number.startsWith('1') && !NORTH_AMERICAN.test(number.slice(1))) continue;
    add('PHONE_NUMBER', isPlus ? start : group.start, end, 2);
    return;
  }
}

/** Offset of the `+` right before a number, or before the bracket it is in; -1 where there is none. */
function plusBefore(text: string, start: number): number {
  const at = text.charAt(start - 1) === '(' ? start - 2 : start - 1;
  if (text.charAt(at) === '+' && !isDigit(text.charCodeAt(at - 1))) return at;
  return -1;
}

function findNorthAmerican(numbers: Numbers, index: number, add: AddFinding): void {
  const { text, groups } = numbers;
  const area = groups[index];
  if (!area) return;
  if (lengthOf(area) === 3) {
    const shape = readShape(numbers, index, [3, 3, 4]) ?? bracketed(numbers, index);
    if (!shape || !NORTH_AMERICAN.test(shape.digits)) return;
    if (opensAt(text, shape.start) && closesAt(text, shape.end))
      add('PHONE_NUMBER', shape.start, shape.end, 1);
  } else if (lengthOf(area) === 1 && text.charAt(area.start) === '1' && opensAt(text, area.start)) {
    const shape = readShape(numbers, index, [1, 3, 3, 4]) ?? bracketed(numbers, index + 1);
    if (!shape || joinerAfter(numbers, index) === undefined || !closesAt(text, shape.end)) return;
    if (NORTH_AMERICAN.test(shape.digits.slice(-10))) add('PHONE_NUMBER', area.start, shape.end, 1);
  }
}

/** `(212) 555-0123` and `(212) 5550123`. */
function bracketed(
  numbers: Numbers,
  index: number,
): { readonly start: number; readonly end: number; readonly digits: string } | undefined {
  const { text, groups } = numbers;
  const area = groups[index];
  const exchange = groups[index + 1];
  if (!area || !exchange || lengthOf(area) !== 3 || text.charAt(area.start - 1) !== '(') return undefined;
  if (!joinerAfter(numbers, index)?.startsWith(')')) return undefined;
  const line = lengthOf(exchange) === 7 ? exchange : groups[index + 2];
  if (!line || (line !== exchange && (lengthOf(exchange) !== 3 || lengthOf(line) !== 4))) return undefined;
  if (line !== exchange && joinerAfter(numbers, index + 1)?.length !== 1) return undefined;
  const digits = text.slice(area.start, line.end).replace(/\D/g, '');
  return { start: area.start - 1, end: line.end, digits };
}

/** After a word such as `phone`: seven to thirteen digits in any groups, unless they are a date. */
function findNamed(numbers: Numbers, index: number, add: AddFinding): void {
  const { text, groups } = numbers;
  const first = groups[index];
  if (!first) return;
  const start = text.charAt(first.start - 1) === '(' ? first.start - 1 : first.start;
  for (const { digits, end } of growing(numbers, index, 13).reverse()) {
    if (digits.length < 7 || DATE.test(text.slice(first.start, end))) continue;
    add('PHONE_NUMBER', start, end, 2);
    return;
  }
}

interface Grown {
  readonly digits: string;
  readonly end: number;
  /** Groups. */
  readonly count: number;
}

/** Groups from `index` on, one more at a time, where the number may end after them. */
function growing(numbers: Numbers, index: number, maxDigits: number): Grown[] {
  const { text, groups } = numbers;
  const grown: Grown[] = [];
  let digits = '';
  for (let at = index; at < groups.length; at++) {
    const group = groups[at];
    if (!group || digits.length + lengthOf(group) > maxDigits) break;
    digits += text.slice(group.start, group.end);
    if (closesAt(text, group.end)) grown.push({ digits, end: group.end, count: at - index + 1 });
    if (joinerAfter(numbers, at) === undefined) break;
  }
  return grown;
}
