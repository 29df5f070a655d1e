// A finding: what kind of personal data stands where in a text, and how findings that overlap become one.
// Not here: how anything is found (the recognisers beside this file).

/** Names of Microsoft Presidio, as Databricks' answers use them; a placeholder is the name in angle brackets. */
export type Entity =
  | 'CREDIT_CARD'
  | 'IBAN_CODE'
  | 'US_SSN'
  | 'US_ITIN'
  | 'ABA_ROUTING_NUMBER'
  | 'US_PASSPORT'
  | 'US_DRIVER_LICENSE'
  | 'PHONE_NUMBER'
  | 'EMAIL_ADDRESS'
  | 'IP_ADDRESS'
  | 'CRYPTO'
  | 'DE_TAX_ID'
  | 'UK_NHS'
  | 'ES_NIF'
  | 'ES_NIE';

/** 1: its form; 2: its form and a word before it; 3: a checksum or a form that nothing else has. */
type Certainty = 1 | 2 | 3;

export interface Finding {
  readonly entity: Entity;
  /** Offsets in the text, end exclusive. */
  readonly start: number;
  readonly end: number;
  readonly certainty: Certainty;
}

export type AddFinding = (entity: Entity, start: number, end: number, certainty: Certainty) => void;

/**
 * Findings in text order that do not overlap. What overlaps becomes one, named after the longest and then the most
 * certain of them; it covers all of them, so that no part of any stays visible.
 */
export function mergeFindings(findings: readonly Finding[]): readonly Finding[] {
  if (findings.length < 2) return findings;
  const sorted = findings.toSorted((left, right) => left.start - right.start);
  const merged: Finding[] = [];
  let best: Finding | undefined;
  let end = -1;
  for (const finding of sorted) {
    if (best === undefined || finding.start >= end) {
      merged.push(finding);
      best = finding;
      end = finding.end;
      continue;
    }
    end = Math.max(end, finding.end);
    if (isBetter(finding, best)) best = finding;
    const first = merged.pop() ?? finding;
    merged.push({ entity: best.entity, certainty: best.certainty, start: first.start, end });
  }
  return merged;
}

/** In an order of its own, so that the result does not depend on the order of the recognisers. */
function isBetter(left: Finding, right: Finding): boolean {
  const length = left.end - left.start - (right.end - right.start);
  if (length !== 0) return length > 0;
  if (left.certainty !== right.certainty) return left.certainty > right.certainty;
  return left.entity < right.entity;
}

/** `findings` as `mergeFindings` gives them. */
export function maskText(text: string, findings: readonly Finding[]): string {
  if (findings.length === 0) return text;
  let masked = '';
  let from = 0;
  for (const { entity, start, end } of findings) {
    masked += `${text.slice(from, start)}<${entity}>`;
    from = end;
  }
  return masked + text.slice(from);
}
