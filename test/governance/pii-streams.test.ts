import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GrowingText } from '#governance/guardrails/growing-text.ts';
import { KeywordMatcher } from '#governance/guardrails/keywords.ts';
import { maskText } from '#governance/guardrails/pii/finding.ts';
import { findPii } from '#governance/guardrails/pii/pii.ts';

/** Pieces that a text of personal data, and of what nearly is, is made of. */
const PIECES = [
  ...['4111 1111 1111 1111', '4111111111111111', '3782 822463 10005', '411111111111', '5555', '1111'],
  ...['DE89 3704 0044 0532 0130 00', 'GB29NWBK60161331926819', 'DE89', 'be68 5390 0754 7034'],
  ...['123-45-6789', '912-78-1234', '123', '45', '6789', '021000021', '9434765919', '943 476 5919'],
  ...['+49 (0)30 1234567', '(212) 555-0123', '212-555-0123', '0049 170 1234567', '030/1234567', '+', '('],
  ...['bob@example.com', 'a.b', '@', 'example', '.com', 'müller@bücher.de', 'x@y'],
  ...['192.168.1.20', '2001:db8::8a2e:370:7334', 'fe80::1ff:fe23', '::', ':', '1.2.3.4.5', 'version'],
  ...['1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa', 'bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4'],
  ...['86095742719', '12345678Z', 'X-1234567-L', 'X1234567', 'passport', 'phone', 'routing', 'ssn', 'card'],
  ...[
    ' ',
    ' ',
    ' ',
    ' ',
    '-',
    '.',
    ',',
    '\n',
    '. ',
    'the',
    'word',
    'A',
    'z',
    '0',
    '7',
    'é',
    '卡',
    '\u{1d7d2}',
  ],
  ...['\u200b', '\u200b'.repeat(12), '\u{1f600}', '٤١١١', '\u00a0', '_'],
];
const text = fc
  .array(
    fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom(...PIECES) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
    ),
    {
      maxLength: 40,
    },
  )
  .map((pieces) => pieces.join(''));
const cuts = fc.array(fc.nat(), { maxLength: 60 });

function split(whole: string, at: readonly number[]): string[] {
  const offsets = [...new Set(at.map((cut) => cut % (whole.length + 1)))].sort((left, right) => left - right);
  return [0, ...offsets].map((from, index) => whole.slice(from, offsets[index] ?? whole.length));
}

interface Outcome {
  readonly text: string;
  readonly entities: readonly string[];
  readonly keyword: string | undefined;
}

function grow(pieces: readonly string[], keywords?: KeywordMatcher, findsPii = true): Outcome {
  const growing = new GrowingText({ findsPii, keywords });
  let shown = '';
  const entities: string[] = [];
  for (const piece of [...pieces, undefined]) {
    const made = piece === undefined ? growing.end() : growing.push(piece);
    shown += made.text;
    entities.push(...made.findings.map(({ entity }) => entity));
    if (made.keyword !== undefined) return { text: shown, entities, keyword: made.keyword };
  }
  return { text: shown, entities, keyword: undefined };
}

describe('a text that arrives in pieces', () => {
  it('shows, however it is cut, exactly the masked whole', () => {
    fc.assert(
      fc.property(text, cuts, (whole, at) => {
        const findings = findPii(whole);
        const outcome = grow(split(whole, at));
        expect(outcome.text).toBe(maskText(whole, findings));
        expect(outcome.entities).toEqual(findings.map(({ entity }) => entity));
      }),
      { numRuns: 1000 },
    );
  });

  it('shows the masked whole also unit by unit', () => {
    fc.assert(
      fc.property(text, (whole) => {
        expect(grow(whole.split('')).text).toBe(maskText(whole, findPii(whole)));
      }),
      { numRuns: 200 },
    );
  });

  it('finds the keywords of the whole, and has shown no part of the first', () => {
    const keywords = ['red wine', 'wine', 'bomb', 'C++', '爆弾', 'straße', 'a b c', 'the word'];
    const matcher = new KeywordMatcher(keywords);
    const words = [
      ...keywords,
      'bom',
      'red',
      ' ',
      '  \n',
      'STRASSE',
      'BOMB',
      '\u00ad',
      '.',
      's',
      'x',
      '爆',
      'a b',
    ];
    const some = fc
      .array(fc.constantFrom(...words, ...PIECES), { maxLength: 12 })
      .map((each) => each.join(''));
    fc.assert(
      fc.property(some, cuts, (whole, at) => {
        const expected = matcher.find(whole);
        const plain = grow(split(whole, at), matcher, false);
        expect(plain.keyword).toBe(expected);
        if (expected === undefined) expect(plain.text).toBe(whole);
        else {
          expect(whole.startsWith(plain.text)).toBe(true);
          expect(matcher.find(whole.slice(plain.text.length))).toBeDefined();
        }
        const masked = grow(split(whole, at), matcher);
        expect(masked.keyword).toBe(expected);
        if (expected === undefined) expect(masked.text).toBe(maskText(whole, findPii(whole)));
      }),
      { numRuns: 800 },
    );
  });

  it('is shown as soon as nothing can come of it', () => {
    const growing = new GrowingText({ findsPii: true, keywords: new KeywordMatcher(['red wine']) });
    const shown = (piece: string) => growing.push(piece).text;
    expect(shown('The answer is ')).toBe('The answer is ');
    expect(shown('plain')).toBe('');
    expect(shown(' ')).toBe('plain ');
    expect(shown('4111 1111 ')).toBe('');
    expect(shown('times')).toBe('4111 1111 ');
    expect(shown('. Red ')).toBe('times. ');
    expect(shown('hat')).toBe('Red ');
    expect(growing.end().text).toBe('hat');
  });

  it('of one endless word or number is held only as far as the longest thing reaches', () => {
    for (const unit of ['a', '7', '@', ':', 'a.', '1 ', '\u200b', '-']) {
      const growing = new GrowingText({ findsPii: true, keywords: undefined });
      let shown = 0;
      for (let count = 0; count < 500; count++) shown += growing.push(unit.repeat(10)).text.length;
      expect(5000 * unit.length - shown).toBeLessThan(400 * unit.length);
    }
  });
});
