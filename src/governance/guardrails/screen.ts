// The rules of an endpoint that need nobody else: personal data and keywords, over a whole input or output. What
// asks a model is in judge.ts and custom-guardrail.ts, what comes in pieces in growing-text.ts.
import type { Input, Output } from '#core/call.ts';
import type { GuardrailRules } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import { KeywordMatcher } from './keywords.ts';
import { type Finding, maskText } from './pii/finding.ts';
import { findPii } from './pii/pii.ts';
import { type Phase, refuse, toAnonymized } from './refusal.ts';
import { type Rewrite, rewriteInput, rewriteOutput } from './texts.ts';

/** How often each kind of personal data was found. */
export type Counts = Readonly<Record<string, number>>;

export interface Screened<T> {
  /** The value to go on with: as it was, or masked. */
  readonly value: T;
  readonly error?: ServingError;
  readonly found: Counts;
}

export class Screen {
  readonly pii: 'NONE' | 'BLOCK' | 'MASK' | undefined;
  readonly keywords: KeywordMatcher | undefined;
  readonly #phase: Phase;
  readonly #endpoint: string;

  constructor(rules: GuardrailRules, phase: Phase, endpoint: string) {
    this.pii = rules.pii?.behavior;
    const keywords = (rules.invalidKeywords ?? []).filter((keyword) => keyword.trim() !== '');
    this.keywords = keywords.length > 0 ? new KeywordMatcher(keywords) : undefined;
    this.#phase = phase;
    this.#endpoint = endpoint;
  }

  get isEmpty(): boolean {
    return this.pii === undefined && this.keywords === undefined;
  }

  input(input: Input): Screened<Input> {
    return this.#screen(input, rewriteInput);
  }

  output(output: Output): Screened<Output> {
    return this.#screen(output, rewriteOutput);
  }

  /** Without personal data, for its caller to see. */
  anonymize(input: Input): Input {
    return rewriteInput(input, (text, before) => maskText(text, findPii(text, before)));
  }

  /** The error for personal data or a keyword that was found in an output piece by piece. */
  refusal(counts: Counts, keyword?: string, anonymized?: Input): ServingError {
    const kinds = Object.keys(counts);
    const hasPii = this.pii === 'BLOCK' && kinds.length > 0;
    const shared = {
      phase: this.#phase,
      endpoint: this.#endpoint,
      hasPii,
      ...(anonymized && { anonymized: toAnonymized(anonymized) }),
    };
    if (hasPii) {
      const verb = this.#phase === 'input' ? 'Remove it and ask again.' : 'The answer is withheld.';
      return refuse({ ...shared, reason: `it holds personal data (${kinds.join(', ')}). ${verb}` });
    }
    // A keyword in an answer is part of what is withheld; one in a question the caller has written.
    const what = this.#phase === 'input' && keyword !== undefined ? ` '${keyword}'` : '';
    const verb = what === '' ? 'The answer is withheld.' : 'Leave it out and ask again.';
    const reason = `it holds a forbidden keyword${what}. ${verb}`;
    return refuse({ ...shared, reason, categories: ['invalid_keywords'] });
  }

  #screen<T extends Input | Output>(value: T, rewrite: (value: T, by: Rewrite) => T): Screened<T> {
    const counts: Record<string, number> = {};
    let keyword: string | undefined;
    // A refused input is given back without personal data, whichever rule refused it.
    const masks = this.pii !== undefined || this.#phase === 'input';
    const masked = rewrite(value, (text, before) => {
      keyword ??= this.keywords?.find(text);
      if (!masks) return text;
      const findings = findPii(text, before);
      countFindings(findings, counts);
      return maskText(text, findings);
    });
    const found = this.pii === undefined ? {} : counts;
    const isBlocked = keyword !== undefined || (this.pii === 'BLOCK' && Object.keys(counts).length > 0);
    if (isBlocked) {
      const anonymized = this.#phase === 'input' ? (masked as Input) : undefined;
      return { value, found, error: this.refusal(counts, keyword, anonymized) };
    }
    return { value: this.pii === 'MASK' ? masked : value, found };
  }
}

export function countFindings(findings: readonly Finding[], counts: Record<string, number>): void {
  for (const { entity } of findings) counts[entity] = (counts[entity] ?? 0) + 1;
}
