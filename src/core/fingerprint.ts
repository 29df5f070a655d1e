// Content addresses: the key of an answer, the hash of an artifact.
import { createHash } from 'node:crypto';

/** SHA-256 of a text or of bytes, in lower-case hex (64 characters). */
export function sha256Hex(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

/** Key of one answer: 43 characters, SHA-256 in base64url. `scope` is the fingerprint of what is shared by a call. */
export function answerKey(scope: string, canonicalInput: string): string {
  return createHash('sha256').update(scope).update('\u0000').update(canonicalInput).digest('base64url');
}
