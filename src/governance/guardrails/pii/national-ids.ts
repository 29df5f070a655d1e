// Numbers that states and banks give to people: US social security and taxpayer numbers, bank routing numbers, the
// German tax id, the UK NHS number, Spanish DNI and NIE; and passports and driving licences, which have no form of
// their own and are found by the word before them.
import {
  closesAt,
  contextWords,
  hasBefore,
  isAsciiLetter,
  isDigit,
  isJoining,
  opensAt,
} from './boundaries.ts';
import { dniLetter, hasAbaCheck, hasGermanTaxCheck, hasNhsCheck } from './checksums.ts';
import { type DigitGroup, lengthOf, type Numbers, readShape, type Shaped } from './digit-groups.ts';
import type { AddFinding, Entity } from './finding.ts';

const SSN_WORDS = contextWords('ssns?|ssn#|social security|social sec|itin|taxpayer|tax id|tin');
const ABA_WORDS = contextWords('aba|routing|rtn|transit|bank|wire|ach');
const NHS_WORDS = contextWords('nhs|national health|health service');

export function findNationalIds(numbers: Numbers, add: AddFinding): void {
  const { text, groups } = numbers;
  for (const [index, group] of groups.entries()) {
    const length = lengthOf(group);
    if (length < 2 || length > 11) continue;
    if (length === 8 || length === 7) findSpanish(text, group, add);
    if (!opensAt(text, group.start)) continue;
    const shaped = (...lengths: number[]): Shaped | undefined => {
      const shape = readShape(numbers, index, lengths);
      return shape && closesAt(text, shape.end) ? shape : undefined;
    };
    const isNamed = (words: RegExp) => hasBefore(text, group.start, words);
    if (length === 3) {
      const social = shaped(3, 2, 4);
      if (social && (social.joiner === '-' || isNamed(SSN_WORDS))) addSocial(social, add);
      const nhs = shaped(3, 3, 4);
      if (nhs && hasNhsCheck(nhs.digits) && (nhs.joiner === ' ' || isNamed(NHS_WORDS)))
        add('UK_NHS', nhs.start, nhs.end, 3);
    } else if (length === 9 && closesAt(text, group.end)) {
      const number = text.slice(group.start, group.end);
      if (isNamed(SSN_WORDS)) addSocial({ ...group, digits: number }, add);
      if (isRouting(number) && isNamed(ABA_WORDS)) add('ABA_ROUTING_NUMBER', group.start, group.end, 3);
    } else if (length === 10) {
      const nhs = shaped(10);
      if (nhs && hasNhsCheck(nhs.digits) && isNamed(NHS_WORDS)) add('UK_NHS', nhs.start, nhs.end, 3);
    } else if (length === 4) {
      const routing = shaped(4, 4, 1);
      if (routing && isRouting(routing.digits) && isNamed(ABA_WORDS))
        add('ABA_ROUTING_NUMBER', routing.start, routing.end, 3);
    } else if (length === 11 || length === 2) {
      const tax = length === 11 ? shaped(11) : shaped(2, 3, 3, 3);
      if (tax && !tax.digits.startsWith('0') && hasGermanTaxCheck(tax.digits))
        add('DE_TAX_ID', tax.start, tax.end, 3);
    }
  }
}

/** Area not 000, 666 or 900 and up, group not 00, serial not 0000; with area 9xx a taxpayer number by its group. */
function addSocial({ start, end, digits }: Pick<Shaped, 'start' | 'end' | 'digits'>, add: AddFinding): void {
  const area = digits.slice(0, 3);
  const group = Number(digits.slice(3, 5));
  if (digits.endsWith('0000') || area === '000' || area === '666' || group === 0) return;
  const isTaxpayer =
    (group >= 50 && group <= 65) || (group >= 70 && group <= 99 && group !== 89 && group !== 93);
  if (!area.startsWith('9')) add('US_SSN', start, end, 2);
  else if (isTaxpayer) add('US_ITIN', start, end, 2);
}

/** The first two digits name a Federal Reserve district and kind of bank. */
function isRouting(digits: string): boolean {
  const district = Number(digits.slice(0, 2));
  const isDistrict =
    district <= 12 ||
    (district >= 21 && district <= 32) ||
    (district >= 61 && district <= 72) ||
    district === 80;
  return isDistrict && hasAbaCheck(digits);
}

/** `12345678Z`, `12345678-Z`, `X1234567L`, `X-1234567-L`. */
function findSpanish(text: string, group: DigitGroup, add: AddFinding): void {
  const letterAt = text.charCodeAt(group.end) === 45 ? group.end + 1 : group.end;
  if (!isAsciiLetter(text.charCodeAt(letterAt)) || isJoining(text.charCodeAt(letterAt + 1))) return;
  const letter = text.charAt(letterAt).toUpperCase();
  const digits = text.slice(group.start, group.end);
  if (digits.length === 8) {
    if (opensAt(text, group.start) && dniLetter(digits) === letter)
      add('ES_NIF', group.start, letterAt + 1, 3);
    return;
  }
  const kindAt = text.charCodeAt(group.start - 1) === 45 ? group.start - 2 : group.start - 1;
  const kind = 'XYZ'.indexOf(text.charAt(kindAt).toUpperCase() || '?');
  if (kind < 0 || !opensAt(text, kindAt)) return;
  if (dniLetter(`${kind}${digits}`) === letter) add('ES_NIE', kindAt, letterAt + 1, 3);
}

const PASSPORT_WORDS = contextWords(
  'passports?|reisepass|passnummer|passeport|pasaporte|passaporto|paspoort',
);
const LICENCE_WORDS = contextWords(
  "driv(?:er['\u2019]?s?|ing)['\u2019]?[ _-]?licen[cs]e|f\u00fchrerschein|permis de conduire|carnet de conducir|dl ?#",
);

/** In the longest form, that of a British driving licence. */
export const LONGEST_DOCUMENT = 18;

export function findDocuments(text: string, add: AddFinding): void {
  const hasPassport = PASSPORT_WORDS.test(text);
  const hasLicence = LICENCE_WORDS.test(text);
  if (!hasPassport && !hasLicence) return;
  for (const { index, 0: word } of text.matchAll(/[0-9A-Za-z]+(?:-[0-9A-Za-z]+)*/g)) {
    if (word.length < 6 || word.length > LONGEST_DOCUMENT || countDigits(word) < 5) continue;
    if (isJoining(text.charCodeAt(index - 1)) || !closesAt(text, index + word.length)) continue;
    const addNamed = (entity: Entity, words: RegExp) => {
      if (hasBefore(text, index, words)) add(entity, index, index + word.length, 2);
    };
    if (hasPassport && word.length <= 9) addNamed('US_PASSPORT', PASSPORT_WORDS);
    if (hasLicence) addNamed('US_DRIVER_LICENSE', LICENCE_WORDS);
  }
}

function countDigits(word: string): number {
  let count = 0;
  for (let at = 0; at < word.length; at++) if (isDigit(word.charCodeAt(at))) count++;
  return count;
}
