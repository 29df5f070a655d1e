// The text of a token: how it is made, hashed and shown, and how long it lives. The text itself is never kept.
import { hash, randomBytes } from 'node:crypto';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { shown } from './records.ts';

const PREFIX = 'dsk_';
/** 32 bytes are 43 characters of base64url. */
const RANDOM_BYTES = 32;
const SHOWN_CHARACTERS = 6;
const LONGEST_LIFETIME_MS = 3_650 * 86_400_000;
const UNITS_MS: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000 };

/** `dsk_` and 43 random characters: 256 bits, so a plain SHA-256 is enough to keep it safe. */
export function createTokenText(): string {
  return PREFIX + randomBytes(RANDOM_BYTES).toString('base64url');
}

/** SHA-256 in hex, as it is kept. */
export function hashToken(text: string): string {
  return sha256Hex(text);
}

/**
 * SHA-256 as 32 characters of one byte, for looking up: the shortest string there is for it, made by one call
 * into OpenSSL. Every request does this once.
 */
export function lookUpKey(text: string): string {
  return hash('sha256', text, 'binary');
}

/** The same from the hash that is kept. */
export function toLookUpKey(hex: string): string {
  return Buffer.from(hex, 'hex').toString('latin1');
}

/** Enough to tell one's tokens apart, too little to guess one. */
export function prefixOf(text: string): string {
  return text.slice(0, SHOWN_CHARACTERS);
}

/** `30d`, `12h`, `45m` as milliseconds. Throws INVALID_PARAMETER. */
export function parseLifetime(text: string): number {
  const [, digits, unit] = /^(\d{1,9})([dhm])$/.exec(text.trim()) ?? [];
  return checkLifetime(Number(digits) * (UNITS_MS[unit ?? ''] ?? Number.NaN), text);
}

/** Milliseconds from now: more than none, at most ten years. Throws INVALID_PARAMETER, showing `given`. */
export function checkLifetime(lifetimeMs: number, given: unknown = lifetimeMs): number {
  if (lifetimeMs > 0 && lifetimeMs <= LONGEST_LIFETIME_MS) return lifetimeMs;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The lifetime of a token is ${shown(given)}; it must be days, hours or minutes such as 30d, 12h or 45m, at most 3650d.`,
  );
}
