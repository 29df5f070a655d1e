// International bank account numbers: length by country and the check modulo 97 (ISO 13616). In one run or with
// one space, dash or dot between characters; in capitals or small letters.
import { closesAt, isAlphanumeric, isAsciiLetter, isDigit, isJoining } from './boundaries.ts';
import { hasIbanCheck } from './checksums.ts';
import type { Numbers } from './digit-groups.ts';
import type { AddFinding } from './finding.ts';

// biome-ignore format: a table
const LENGTHS: Readonly<Record<string, number>> = {
  AD: 24, AE: 23, AL: 28, AT: 20, AZ: 28, BA: 20, BE: 16, BG: 22, BH: 22, BI: 27, BR: 29, BY: 28, CH: 21, CR: 22,
  CY: 28, CZ: 24, DE: 22, DJ: 27, DK: 18, DO: 28, EE: 20, EG: 29, ES: 24, FI: 18, FK: 18, FO: 18, FR: 27, GB: 22,
  GE: 22, GI: 23, GL: 18, GR: 27, GT: 28, HN: 28, HR: 21, HU: 28, IE: 22, IL: 23, IQ: 23, IS: 26, IT: 27, JO: 30,
  KW: 30, KZ: 20, LB: 28, LC: 32, LI: 21, LT: 20, LU: 20, LV: 21, LY: 25, MC: 27, MD: 24, ME: 22, MK: 19, MN: 20,
  MR: 27, MT: 31, MU: 30, NI: 28, NL: 18, NO: 15, OM: 23, PK: 24, PL: 28, PS: 29, PT: 25, QA: 29, RO: 24, RS: 22,
  RU: 33, SA: 24, SC: 31, SD: 18, SE: 24, SI: 19, SK: 24, SM: 27, SO: 23, ST: 25, SV: 28, TL: 23, TN: 24, TR: 26,
  UA: 29, VA: 22, VG: 24, XK: 20, YE: 30,
};

/** With a separator after every character. */
export const LONGEST_IBAN = 66;

/** Length of the IBAN that begins at `start` by its country, or 0 where none can. */
export function ibanLengthAt(text: string, start: number): number {
  if (isJoining(text.charCodeAt(start - 1))) return 0;
  if (!isAsciiLetter(text.charCodeAt(start)) || !isAsciiLetter(text.charCodeAt(start + 1))) return 0;
  if (!isDigit(text.charCodeAt(start + 2)) || !isDigit(text.charCodeAt(start + 3))) return 0;
  return LENGTHS[text.slice(start, start + 2).toUpperCase()] ?? 0;
}

export function isIbanSeparator(code: number): boolean {
  return code === 32 || code === 45 || code === 46;
}

export function findIbans({ text, groups }: Numbers, add: AddFinding): void {
  for (const group of groups) {
    const start = group.start - 2;
    const length = ibanLengthAt(text, start);
    if (length === 0) continue;
    let characters = '';
    let at = start;
    for (; at < text.length && characters.length < length; at++) {
      const code = text.charCodeAt(at);
      if (isAlphanumeric(code)) characters += text.charAt(at);
      else if (!isIbanSeparator(code) || isIbanSeparator(text.charCodeAt(at - 1))) break;
    }
    if (characters.length === length && closesAt(text, at) && hasIbanCheck(characters.toUpperCase()))
      add('IBAN_CODE', start, at, 3);
  }
}
