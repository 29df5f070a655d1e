// Addresses of cryptocurrencies: base58check (Bitcoin and its relatives), bech32 (segwit), and Ethereum's 0x form,
// which is told by its length alone.
import { isAlphanumeric, isJoining } from './boundaries.ts';
import { hasBase58Check, hasBech32Check } from './checksums.ts';
import type { AddFinding } from './finding.ts';

/** Longest bech32 text by BIP 173. */
export const LONGEST_CRYPTO = 90;
const SHORTEST_CRYPTO = 14;
const BASE58 = /^[13LMDA29tmnr][1-9A-HJ-NP-Za-km-z]{25,34}$/;
const BECH32 = /^(?:bc|tb|ltc)1[02-9ac-hj-np-z]{6,84}$/;
const ETHEREUM = /^0x[0-9a-f]{40}$/i;

export function findCryptoAddresses(text: string, add: AddFinding): void {
  for (let end = 0; end < text.length; end++) {
    const start = end;
    while (isAlphanumeric(text.charCodeAt(end))) end++;
    if (end - start < SHORTEST_CRYPTO || end - start > LONGEST_CRYPTO) continue;
    if (isJoining(text.charCodeAt(start - 1)) || isJoining(text.charCodeAt(end))) continue;
    const word = text.slice(start, end);
    if (BASE58.test(word) ? hasBase58Check(word) : isSegwit(word)) add('CRYPTO', start, end, 3);
    else if (ETHEREUM.test(word)) add('CRYPTO', start, end, 2);
  }
}

function isSegwit(word: string): boolean {
  const small = word.toLowerCase();
  // Mixed case is forbidden, so that one of the two may be used for typing.
  return (word === small || word === word.toUpperCase()) && BECH32.test(small) && hasBech32Check(small);
}
