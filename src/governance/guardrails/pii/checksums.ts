// The check digits that numbers carry, each over the bare digits or characters. Sources: ISO/IEC 7812 (Luhn),
// ISO 13616 (IBAN), ABA routing numbers, NHS number, ISO/IEC 7064 (German tax id), Spanish DNI, Bitcoin (BIP 173,
// BIP 350, base58check).
import { createHash } from 'node:crypto';

const digitAt = (digits: string, index: number): number => digits.charCodeAt(index) - 48;

export function hasLuhn(digits: string): boolean {
  let sum = 0;
  for (let index = digits.length - 1, isDoubled = false; index >= 0; index--, isDoubled = !isDoubled) {
    const digit = digitAt(digits, index) * (isDoubled ? 2 : 1);
    sum += digit > 9 ? digit - 9 : digit;
  }
  return sum % 10 === 0;
}

/** `iban`: without separators, in capitals. */
export function hasIbanCheck(iban: string): boolean {
  const turned = iban.slice(4) + iban.slice(0, 4);
  let remainder = 0;
  for (let index = 0; index < turned.length; index++) {
    const code = turned.charCodeAt(index);
    remainder = code >= 65 ? (remainder * 100 + code - 55) % 97 : (remainder * 10 + code - 48) % 97;
  }
  return remainder === 1;
}

/** Nine digits. */
export function hasAbaCheck(digits: string): boolean {
  const weights = [3, 7, 1];
  let sum = 0;
  for (let index = 0; index < 9; index++) sum += digitAt(digits, index) * (weights[index % 3] ?? 0);
  return sum % 10 === 0;
}

/** Ten digits. */
export function hasNhsCheck(digits: string): boolean {
  let sum = 0;
  for (let index = 0; index < 9; index++) sum += digitAt(digits, index) * (10 - index);
  const check = (11 - (sum % 11)) % 11;
  return check === digitAt(digits, 9);
}

/** Eleven digits: of the first ten one comes two or three times and all others at most once. */
export function hasGermanTaxCheck(digits: string): boolean {
  const counts = new Array<number>(10).fill(0);
  let product = 10;
  for (let index = 0; index < 10; index++) {
    const digit = digitAt(digits, index);
    counts[digit] = (counts[digit] ?? 0) + 1;
    const sum = (digit + product) % 10 || 10;
    product = (sum * 2) % 11;
  }
  const repeated = counts.filter((count) => count > 1);
  if (repeated.length !== 1 || (repeated[0] ?? 0) > 3) return false;
  return (11 - product) % 10 === digitAt(digits, 10);
}

const DNI_LETTERS = 'TRWAGMYFPDXBNJZSQVHLCKE';

/** The letter that belongs to a DNI of eight digits, or to an NIE whose X, Y, Z is written 0, 1, 2. */
export function dniLetter(digits: string): string {
  return DNI_LETTERS.charAt(Number(digits) % 23);
}

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

/** An address of 25 bytes whose last four are the first of a double SHA-256 over the others. */
export function hasBase58Check(address: string): boolean {
  const bytes = new Uint8Array(25);
  for (let index = 0; index < address.length; index++) {
    let carry = BASE58.indexOf(address.charAt(index));
    if (carry < 0) return false;
    for (let byte = 24; byte >= 0; byte--) {
      carry += (bytes[byte] ?? 0) * 58;
      bytes[byte] = carry & 255;
      carry >>= 8;
    }
    if (carry !== 0) return false;
  }
  const sha256 = (content: Uint8Array): Buffer => createHash('sha256').update(content).digest();
  return sha256(sha256(bytes.subarray(0, 21))).compare(bytes, 21, 25, 0, 4) === 0;
}

const BECH32 = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
const BECH32_GENERATORS = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
const BECH32_CONSTANT = 1;
const BECH32M_CONSTANT = 0x2bc830a3;

/** `address`: in small letters, with its prefix and the `1` after it. */
export function hasBech32Check(address: string): boolean {
  const separator = address.lastIndexOf('1');
  const prefix = [...address.slice(0, separator)].map((character) => character.charCodeAt(0));
  const values = [...address.slice(separator + 1)].map((character) => BECH32.indexOf(character));
  if (values.includes(-1)) return false;
  let check = 1;
  for (const value of [
    ...prefix.map((code) => code >> 5),
    0,
    ...prefix.map((code) => code & 31),
    ...values,
  ]) {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ value;
    for (const [bit, generator] of BECH32_GENERATORS.entries()) if ((top >> bit) & 1) check ^= generator;
  }
  return check === BECH32_CONSTANT || check === BECH32M_CONSTANT;
}
