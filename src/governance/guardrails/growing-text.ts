// A text that arrives in pieces, shown as far as it is decided: what was found is masked, and what could still
// become part of something is held back. Piece by piece it gives exactly what the whole text would.
import type { KeywordMatcher, KeywordScan } from './keywords.ts';
import { type Finding, maskText } from './pii/finding.ts';
import { foldText, hasInvisible, LONGEST_INVISIBLE } from './pii/fold.ts';
import { findInFolded, LOOK_BEHIND, originalOffsets, pendingFrom } from './pii/pii.ts';

export interface Shown {
  /** What follows what was shown before, with placeholders for what was found in it. */
  readonly text: string;
  readonly findings: readonly Finding[];
  /** A forbidden keyword of the text so far. Nothing of it has been shown. */
  readonly keyword: string | undefined;
}

interface GrowingTextOptions {
  readonly findsPii: boolean;
  readonly keywords: KeywordMatcher | undefined;
}

export class GrowingText {
  readonly #findsPii: boolean;
  readonly #keywords: KeywordScan | undefined;
  /** The end of what was shown, unmasked; it says what follows it. */
  #behind = '';
  #held = '';
  /** UTF-16 units that were shown. */
  #shown = 0;

  constructor({ findsPii, keywords }: GrowingTextOptions) {
    this.#findsPii = findsPii;
    this.#keywords = keywords?.scan();
  }

  push(piece: string): Shown {
    this.#held += piece;
    const keyword = this.#keywords?.push(piece);
    if (keyword !== undefined) return { text: '', findings: [], keyword };
    const keywordFrom = this.#keywords ? this.#keywords.pendingFrom - this.#shown : this.#held.length;
    return this.#show(Math.min(keywordFrom, this.#wholeLength), false);
  }

  end(): Shown {
    const keyword = this.#keywords?.end();
    if (keyword !== undefined) return { text: '', findings: [], keyword };
    return this.#show(this.#held.length, true);
  }

  /** Without the first half of a character outside the basic plane, whose other half comes with the next piece. */
  get #wholeLength(): number {
    const last = this.#held.charCodeAt(this.#held.length - 1);
    return this.#held.length - (last >= 0xd800 && last <= 0xdbff ? 1 : 0);
  }

  /** At most `most` units of what is held. */
  #show(most: number, isEnd: boolean): Shown {
    if (most <= 0) return NOTHING;
    const { findings, limit } = this.#findsPii ? this.#decide(most, isEnd) : { findings: [], limit: most };
    if (limit === 0) return NOTHING;
    const text = maskText(this.#held.slice(0, limit), findings);
    this.#behind = lookBehind(this.#behind + this.#held.slice(0, limit));
    this.#held = this.#held.slice(limit);
    this.#shown += limit;
    return { text, findings, keyword: undefined };
  }

  #decide(most: number, isEnd: boolean): { readonly findings: readonly Finding[]; readonly limit: number } {
    const behind = this.#behind.length;
    const held = isEnd ? this.#held : this.#held.slice(0, this.#wholeLength);
    const folded = foldText(this.#behind + held);
    const from = folded.indexFrom(behind);
    const all = findInFolded(folded.text, from);
    if (isEnd) return { findings: originalOffsets(all, folded, behind), limit: this.#held.length };
    let limit = Math.min(pendingFrom(folded.text), folded.indexFrom(behind + most));
    for (const { start, end } of all) if (start < limit && end > limit) limit = start;
    if (limit <= from) return { findings: [], limit: 0 };
    const decided = all.filter(({ end }) => end <= limit);
    return {
      findings: originalOffsets(decided, folded, behind),
      limit: Math.min(folded.start(limit) - behind, most),
    };
  }
}

const NOTHING: Shown = { text: '', findings: [], keyword: undefined };

/** Of what was shown as much as has a say in what follows; invisible characters do not count. */
function lookBehind(shown: string): string {
  const near = shown.slice(-2 * LOOK_BEHIND);
  return hasInvisible(near) ? shown.slice(-LOOK_BEHIND * (LONGEST_INVISIBLE + 2)) : near;
}
