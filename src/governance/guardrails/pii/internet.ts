// E-mail and IP addresses. An e-mail is found from its `@` outwards, so that a long text without one costs nothing.
import { isIPv6 } from 'node:net';
import { isAsciiLetter, isDigit, isJoining } from './boundaries.ts';
import type { AddFinding } from './finding.ts';

export const LONGEST_LOCAL_PART = 64;
export const LONGEST_DOMAIN = 253;
const LONGEST_LABEL = 63;
const DOT = 46;

/** Before the `@`. Rarer characters that the standard allows are left out: they part addresses in URLs and lists. */
export function isLocalPart(code: number): boolean {
  return isJoining(code) || code === DOT || code === 45 || code === 43 || code === 37 || code === 39;
}

export function isDomain(code: number): boolean {
  return code === DOT || code === 45 || (isJoining(code) && code !== 95);
}

export function findEmails(text: string, add: AddFinding): void {
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
    let start = at;
    while (at - start < LONGEST_LOCAL_PART && isLocalPart(text.charCodeAt(start - 1))) start--;
    while (start < at && !isJoining(text.charCodeAt(start))) start++;
    if (start === at) continue;
    const end = domainEnd(text, at + 1);
    if (end > 0) add('EMAIL_ADDRESS', start, end, 3);
  }
}

/** Where the domain that begins at `start` ends; 0 where none does. The last label is of letters. */
function domainEnd(text: string, start: number): number {
  let end = 0;
  let labels = 0;
  for (let at = start; ; at++) {
    const labelStart = at;
    while (isDomain(text.charCodeAt(at)) && text.charCodeAt(at) !== DOT) at++;
    const length = at - labelStart;
    if (length === 0 || length > LONGEST_LABEL || at - start > LONGEST_DOMAIN) break;
    labels++;
    if (labels > 1 && isTopLevel(text.slice(labelStart, at))) end = at;
    if (text.charCodeAt(at) !== DOT) break;
  }
  return end;
}

function isTopLevel(label: string): boolean {
  return label.length > 1 && (!/[\d-]/.test(label) || /^xn--/i.test(label)) && !label.endsWith('-');
}

/** A dotted number after such a word is a version. */
const VERSION = /(?:version|release|build|firmware|driver|ver|v)[ .:=-]{0,2}$/i;
const IPV4 = /(?<!\d)(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?!\d)/g;
/** The longest text of an IPv6 address: six groups of four and a dotted IPv4. */
export const LONGEST_IP = 45;

export function findIps(text: string, add: AddFinding): void {
  for (const { index, 0: address } of text.matchAll(IPV4)) {
    const end = index + address.length;
    const before = text.charCodeAt(index - 1);
    if (isJoining(before) || before === DOT || before === 45 || isJoining(text.charCodeAt(end))) continue;
    if (text.charCodeAt(end) === DOT && isDigit(text.charCodeAt(end + 1))) continue;
    if (!VERSION.test(text.slice(Math.max(0, index - 12), index))) add('IP_ADDRESS', index, end, 2);
  }
  findIpv6(text, add);
}

/** A whole run of its characters, or what follows the first colon of one: `address:2001:db8::1`. */
function findIpv6(text: string, add: AddFinding): void {
  for (let colon = text.indexOf(':'); colon >= 0; ) {
    let start = colon;
    while (colon - start <= LONGEST_IP && isInIpv6(text.charCodeAt(start - 1))) start--;
    let end = colon;
    while (isInIpv6(text.charCodeAt(end))) end++;
    if (end - start <= LONGEST_IP + 1 && !addIpv6(text, start, end, add)) addIpv6(text, colon + 1, end, add);
    colon = text.indexOf(':', end);
  }
}

function addIpv6(text: string, start: number, runEnd: number, add: AddFinding): boolean {
  if (isJoining(text.charCodeAt(start - 1)) || isJoining(text.charCodeAt(runEnd))) return false;
  let end = runEnd;
  while (end > start && isPunctuation(text.charCodeAt(end - 1)) && !text.startsWith('::', end - 2)) end--;
  const address = text.slice(start, end);
  // `::` alone or with a digit or two stands in many programs; a loopback address is nobody's.
  const digits = address.replace(/[:.]/g, '');
  if (digits.length < 5 || !/\d/.test(digits) || !isIPv6(address)) return false;
  add('IP_ADDRESS', start, end, 3);
  return true;
}

function isPunctuation(code: number): boolean {
  return code === 58 || code === DOT;
}

function isHexadecimal(code: number): boolean {
  return isDigit(code) || (isAsciiLetter(code) && (code | 32) <= 102);
}

export function isInIpv6(code: number): boolean {
  return isPunctuation(code) || isHexadecimal(code);
}
