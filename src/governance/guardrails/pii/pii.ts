// Personal data in a text: all recognisers over one reading of it, and how much of the end of a text that is still
// growing could become part of something. What is found depends on a bounded stretch of text around it and on
// nothing else, and the work is proportional to the length of the text, whatever it holds.
import { isAlphanumeric, isDigit } from './boundaries.ts';
import { findCards } from './cards.ts';
import { findCryptoAddresses, LONGEST_CRYPTO } from './crypto-addresses.ts';
import { readNumbers } from './digit-groups.ts';
import { type AddFinding, type Finding, mergeFindings } from './finding.ts';
import { type Folded, foldText } from './fold.ts';
import { findIbans, ibanLengthAt, isIbanSeparator, LONGEST_IBAN } from './iban.ts';
import {
  findEmails,
  findIps,
  isDomain,
  isInIpv6,
  isLocalPart,
  LONGEST_DOMAIN,
  LONGEST_IP,
  LONGEST_LOCAL_PART,
} from './internet.ts';
import { findDocuments, findNationalIds, LONGEST_DOCUMENT } from './national-ids.ts';
import { findPhones } from './phones.ts';

/** Whatever is found has a digit or an `@` in it. */
const HAS_ANY = /[\d@]/;

/**
 * Findings in text order, none overlapping another. `before` is what stands before the text (the name of a field,
 * what was read earlier): it is context, and nothing is found in it.
 */
export function findPii(text: string, before = ''): readonly Finding[] {
  const folded = foldText(before + text);
  return originalOffsets(findInFolded(folded.text, folded.indexFrom(before.length)), folded, before.length);
}

/** Findings that begin at `from` or later, with the offsets of folded text. */
export function findInFolded(text: string, from: number): readonly Finding[] {
  if (!HAS_ANY.test(from === 0 ? text : text.slice(from))) return [];
  const findings: Finding[] = [];
  const add: AddFinding = (entity, start, end, certainty) => {
    if (start >= from) findings.push({ entity, start, end, certainty });
  };
  findEmails(text, add);
  const numbers = readNumbers(text);
  if (numbers.groups.length > 0) {
    findCards(numbers, add);
    findIbans(numbers, add);
    findNationalIds(numbers, add);
    findPhones(numbers, add);
    findIps(text, add);
    findCryptoAddresses(text, add);
    findDocuments(text, add);
  }
  return mergeFindings(findings);
}

export function originalOffsets(
  findings: readonly Finding[],
  folded: Folded,
  shift: number,
): readonly Finding[] {
  return findings.map((finding) => ({
    ...finding,
    start: folded.start(finding.start) - shift,
    end: folded.end(finding.end) - shift,
  }));
}

/** Farther back nothing has a say in what is found: words of context, and what joins on to a number. */
export const LOOK_BEHIND = 128;

/** What follows a number or word and still says whether it has ended. */
const AFTER = 4;
/** Seventeen digits of a telephone number, each in a group of its own, with a plus and a bracket. */
const LONGEST_NUMBER = 17 + 16 * 3 + 2 + AFTER;
const LONGEST_WORD = Math.max(LONGEST_CRYPTO, LONGEST_LOCAL_PART, LONGEST_DOCUMENT) + AFTER;

/**
 * Everything before this offset of a folded text is decided, whatever follows: what begins there has ended. From
 * here on something could still grow.
 */
export function pendingFrom(text: string): number {
  return Math.min(wordFrom(text), numberFrom(text), ibanFrom(text), ipFrom(text));
}

/** Start of the last run of characters that pass, not farther back than `longest`. */
function runStart(text: string, longest: number, passes: (code: number) => boolean): number {
  let start = text.length;
  while (start > 0 && text.length - start < longest && passes(text.charCodeAt(start - 1))) start--;
  return start;
}

/** Words, addresses of currencies, ids of letters and digits; with an `@` in it an e-mail address. */
function wordFrom(text: string): number {
  const start = runStart(text, LONGEST_WORD, isLocalPart);
  const domain = runStart(text, LONGEST_DOMAIN + 1, isDomain);
  if (text.charCodeAt(domain - 1) !== 64) return start;
  let local = domain - 1;
  while (domain - 1 - local < LONGEST_LOCAL_PART && isLocalPart(text.charCodeAt(local - 1))) local--;
  return Math.min(start, local);
}

/** Numbers in groups: from the first digit, `+` or bracket of the run on. */
function numberFrom(text: string): number {
  let start = runStart(text, LONGEST_NUMBER, (code) => isDigit(code) || NUMBER_SIGNS.includes(code));
  while (start < text.length && !/[\d+(]/.test(text.charAt(start))) start++;
  return start;
}
const NUMBER_SIGNS = [...' -./()_+,'].map((sign) => sign.charCodeAt(0));

function ibanFrom(text: string): number {
  const run = runStart(text, LONGEST_IBAN + AFTER, (code) => isAlphanumeric(code) || isIbanSeparator(code));
  for (let start = run; start + 3 < text.length; start++) if (ibanLengthAt(text, start) > 0) return start;
  return text.length;
}

function ipFrom(text: string): number {
  return runStart(text, LONGEST_IP + AFTER, isInIpv6);
}
