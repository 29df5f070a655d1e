// The static engine: its carried table, its tokenizer against the general one, and what its vectors are good for.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { STATIC_256_ID } from '#core/embedded-models.ts';
import type { Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext, Runner } from '#engines/engine.ts';
import { staticEngine } from '#engines/static/static.ts';
import { formatTable, meanDirection, parseTable, quantiseRows } from '#engines/static/table.ts';
import { WordPiece } from '#engines/static/wordpiece.ts';
import { STATIC_256_SHA256, sizeOf, weightsOf } from '#engines/weights/catalogue.ts';
import { isPresent, weightsDirectory } from '#engines/weights/weights.ts';
import { describeEngine, expectCode } from './contract.ts';

const directory = weightsDirectory(STATIC_256_ID, '/nowhere');
const vocabulary = (await readFile(join(directory, 'vocab.txt'), 'utf8')).trimEnd().split('\n');

const context: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '/nowhere',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};
const targetOf = (source: string): Target => ({
  endpoint: 'embedded-static-256',
  servedEntity: 'current',
  engine: 'static',
  task: 'llm/v1/embeddings',
  fingerprint: STATIC_256_SHA256,
  model: 'embedded/static-256@1',
  modelVersion: {
    model: STATIC_256_ID,
    version: '1',
    engine: 'static',
    task: 'llm/v1/embeddings',
    source,
    sha256: STATIC_256_SHA256,
    sizeBytes: sizeOf(weightsOf(STATIC_256_ID)),
    dimensions: 256,
    options: {},
    createdAtMs: 0,
  },
});
const open = () => staticEngine.open(targetOf(`embedded:${STATIC_256_ID}`), context);

describeEngine('static', {
  task: 'llm/v1/embeddings',
  open,
  inputs: [
    { text: 'A duck swims on the lake.' },
    { text: 'The invoice was paid twice.' },
    { text: 'naïve café 東京' },
  ],
});

describe('the carried files', () => {
  test('the table is the one of the catalogue and of its manifest', async () => {
    const sha256 = createHash('sha256')
      .update(await readFile(join(directory, 'table.bin')))
      .digest('hex');
    const manifest = JSON.parse(await readFile(join(directory, 'manifest.json'), 'utf8')) as {
      sha256: string;
    };
    expect(sha256).toBe(STATIC_256_SHA256);
    expect(manifest.sha256).toBe(STATIC_256_SHA256);
    expect(isPresent(STATIC_256_ID, '/nowhere')).toBe(true);
  });

  test('the folder says that it is a derivative, of what, and under which licence', async () => {
    expect(await readFile(join(directory, 'NOTICE'), 'utf8')).toMatch(/all-MiniLM-L6-v2[\s\S]*Apache/);
    expect(await readFile(join(directory, 'LICENSE'), 'utf8')).toMatch(/Apache License\s+Version 2\.0/);
  });
});

describe('WordPiece', () => {
  // The vocabulary in the frame of MiniLM's tokenizer.json.
  const general = new Tokenizer(
    {
      added_tokens: ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'].map((content) => ({
        id: vocabulary.indexOf(content),
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: {
        type: 'BertNormalizer',
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: true,
      },
      pre_tokenizer: { type: 'BertPreTokenizer' },
      post_processor: null,
      decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
      model: {
        type: 'WordPiece',
        unk_token: '[UNK]',
        continuing_subword_prefix: '##',
        max_input_chars_per_word: 100,
        vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      },
    },
    {},
  );
  const own = new WordPiece(vocabulary);
  const expectEqual = (text: string) => {
    expect([...own.encode(text)], JSON.stringify(text)).toEqual(
      general.encode(text, { add_special_tokens: false }).ids,
    );
  };

  test('gives known ids for a known sentence', () => {
    expect([...own.encode('Hello, embeddings!')].map((id) => vocabulary[id])).toEqual([
      'hello',
      ',',
      'em',
      '##bed',
      '##ding',
      '##s',
      '!',
    ]);
  });

  test.each([
    'The quick brown fox jumps over the lazy dog. 1,234.56 USD (50 %) -- e-mail: a.b@c.example',
    'naïve café déjà-vu Ångström İstanbul ΟΔΟΣ Straße ŒUVRE ﬁne',
    '東京タワーは高い。 中文分词 한국어 문장 𠀀𠀁 㐀',
    'Привет, мир! שָׁלוֹם مرحبا नमस्ते สวัสดี',
    '“smart” — quotes… € ™ ½ 😀👩‍👩‍👧 \u{1d400}\u{e000}',
    'tabs\tand\r\nlines\u00a0non-breaking\u200bzero\u00adsoft\ufeffmark\u0000nul\u007fdel\u0085nel',
    'before [SEP] between [CLS][MASK] after [sep] [UNK]x',
    `${'a'.repeat(100)} ${'b'.repeat(101)} ${'é'.repeat(100)} ${'😀'.repeat(101)} ${'x'.repeat(5000)}`,
    'unlikelyneologismification ##ing ## # _under_score_ `tick` ~ ^ |',
    '\ud800 lone \udc00 surrogates',
    '   ',
    '',
  ])('splits %j as the general tokenizer does', expectEqual);

  test('splits any text as the general tokenizer does', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 60 }), expectEqual), { numRuns: 2000 });
    fc.assert(fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), expectEqual), { numRuns: 2000 });
    fc.assert(fc.property(fc.string({ unit: 'binary-ascii', maxLength: 200 }), expectEqual), {
      numRuns: 2000,
    });
  });

  test('grows for a text of many tokens and starts empty again', () => {
    expect(own.encode('duck '.repeat(5000))).toHaveLength(5000);
    expect(own.encode('duck')).toHaveLength(1);
  });
});

describe('the table', () => {
  test('comes back from its bytes as it was', () => {
    const table = quantiseRows(
      [Float64Array.of(1, -0.5), Float64Array.of(0, 0), Float64Array.of(0.02, 0.04)],
      2,
    );
    const again = parseTable(formatTable(table), 'memory');
    expect(again).toEqual(table);
    const inside = Buffer.concat([Buffer.from('before'), formatTable(table), Buffer.from('after')]).subarray(
      6,
      -5,
    );
    expect(parseTable(inside, 'memory'), 'a view into other bytes').toEqual(table);
    expect([...again.values]).toEqual([127, -63, 0, 0, 64, 127]);
  });

  test('refuses bytes that are no table, naming the file', () => {
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(12),
      formatTable(quantiseRows([Float64Array.of(1)], 1)).slice(1),
    ]) {
      expect(() => parseTable(bytes, 'some/table.bin')).toThrow(
        /some\/table\.bin is not a static embedding table/,
      );
    }
  });

  test('sums rows the same however many there are', () => {
    const rows = Array.from({ length: 9 }, (_, row) => Float64Array.of(row + 1, 1, -row));
    const table = quantiseRows(rows, 3);
    for (let count = 1; count <= 9; count++) {
      const expected = [0, 1, 2].map((d) => {
        let sum = 0;
        for (let row = 0; row < count; row++)
          sum += (table.scales[row] ?? 0) * (table.values[row * 3 + d] ?? 0);
        return sum;
      });
      const length = Math.hypot(...expected);
      const direction = meanDirection(
        table,
        Int32Array.from({ length: count }, (_, i) => i),
        new Uint8Array(9),
      );
      for (const [d, value] of expected.entries()) expect(direction?.[d]).toBeCloseTo(value / length, 5);
    }
  });
});

describe('static embeddings', () => {
  let runner: Runner;
  const embed = (texts: readonly string[]): readonly Float32Array[] => {
    if (!runner.local?.embed) throw new Error('the static runner has no local embed');
    return runner.local.embed(texts);
  };
  const dot = (left: Float32Array, right: Float32Array): number =>
    left.reduce((sum, value, index) => sum + value * (right[index] ?? 0), 0);
  beforeAll(async () => {
    runner = await open();
  });

  test('finds the paraphrase of a sentence among others', () => {
    const pairs = [
      ['How do I reset my password?', 'I forgot my password and need a new one'],
      ['The delivery arrived late', 'My package was delayed in shipping'],
      ['The cat sits on the mat', 'A kitten is resting on the rug'],
      ['Interest rates rose again', 'The central bank increased borrowing costs'],
      ['He is a doctor at the hospital', 'The physician works in a clinic'],
      ['The food at the restaurant was delicious', 'We had a tasty meal there'],
      ['The plane landed safely', 'The aircraft touched down without problems'],
      ['The children are playing football', 'Kids play soccer in the yard'],
      ['This phone has a great camera', 'The smartphone takes excellent photos'],
      ['The president signed the law', 'The head of state approved the legislation'],
    ] as const;
    const lefts = embed(pairs.map(([left]) => left));
    const rights = embed(pairs.map(([, right]) => right));
    const found = lefts.map((left) => {
      const similarities = rights.map((right) => dot(left, right));
      return similarities.indexOf(Math.max(...similarities));
    });
    expect(found).toEqual([...pairs.keys()]);
  });

  test('gives the same vector inside a callback as through a batch', async () => {
    const texts = ['one text', 'another text'];
    const { items } = await runner.invoke({
      task: 'llm/v1/embeddings',
      inputs: texts.map((text) => ({ text })),
      parameters: {},
      signal: new AbortController().signal,
    });
    expect(
      items.map((item) => (item.ok && 'embedding' in item.output ? item.output.embedding : null)),
    ).toEqual(embed(texts));
  });

  test('gives a text without words a direction too', () => {
    for (const text of ['', '   ', '\u0000', '[PAD]']) {
      const [vector] = embed([text]);
      expect(Math.hypot(...(vector ?? []))).toBeCloseTo(1, 3);
    }
  });

  test('refuses to shorten its vectors', async () => {
    const batch = {
      task: 'llm/v1/embeddings',
      inputs: [{ text: 'a' }],
      signal: new AbortController().signal,
    } as const;
    await expectCode('INVALID_PARAMETER', runner.invoke({ ...batch, parameters: { dimensions: 64 } }));
    await runner.invoke({ ...batch, parameters: { dimensions: 256 } });
  });

  test('says what is wrong with a source that is not there or not known', async () => {
    await expectCode('MODEL_NOT_AVAILABLE', staticEngine.open(targetOf('/no/such/folder'), context));
    await expectCode('MODEL_NOT_AVAILABLE', staticEngine.open(targetOf('relative/folder'), context));
    await expectCode('NOT_FOUND', staticEngine.open(targetOf('embedded:embedded/unheard-of'), context));
  });
});
