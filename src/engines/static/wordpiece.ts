// BERT's uncased WordPiece: text to token ids, equal to what the tokenizer.json of MiniLM prescribes and several
// times faster than a general tokenizer. Not for other vocabularies: cased models, BPE and Unigram are not known here.

const SPECIAL_TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'] as const;
const SPECIAL_PATTERN = /(\[(?:PAD|UNK|CLS|SEP|MASK)\])/;
/** Words longer than this are one unknown token, as in the original. */
const MAX_WORD_CHARS = 100;
/** Words of several pieces that are remembered; the memory is dropped whole when it is full. */
const MAX_REMEMBERED_WORDS = 50_000;

const PLAIN_ASCII = /^[\t\n\r\x20-\x7e]*$/;
// Control, format, private-use and lone surrogate characters; tab and line ends are white space instead.
const DROPPED = /[\0\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;
const IDEOGRAPH = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]/g;
const COMBINING_MARK = /\p{Mn}/gu;
const WORD_OR_MARK = /[^\s\p{P}!-/:-@[-`{-~]+|[\p{P}!-/:-@[-`{-~]/gu;

const SPACE = 1;
const PUNCTUATION = 2;
/** By ASCII code: 0 part of a word, else SPACE or PUNCTUATION. */
const ASCII_CLASS = Uint8Array.from({ length: 128 }, (_, code) => {
  if (code <= 32) return SPACE;
  const isWord = /[0-9A-Za-z]/.test(String.fromCharCode(code)) || code === 127;
  return isWord ? 0 : PUNCTUATION;
});

export class WordPiece {
  readonly #ids: Map<string, number>;
  /** Pieces inside a word, without their `##`. */
  readonly #continuations = new Map<string, number>();
  readonly #remembered = new Map<string, readonly number[]>();
  readonly #unknownId: number;
  #out = new Int32Array(1024);
  #count = 0;

  /** `vocabulary[id]` is the text of a token. */
  constructor(vocabulary: readonly string[]) {
    this.#ids = new Map(vocabulary.map((token, id) => [token, id]));
    for (const [id, token] of vocabulary.entries()) {
      if (token.startsWith('##')) this.#continuations.set(token.slice(2), id);
    }
    this.#unknownId = this.#ids.get('[UNK]') ?? 0;
  }

  /** Ids of the tokens that stand for no word. */
  get specialIds(): readonly number[] {
    return SPECIAL_TOKENS.flatMap((token) => this.#ids.get(token) ?? []);
  }

  get unknownId(): number {
    return this.#unknownId;
  }

  /** Token ids without [CLS] and [SEP]. A view that the next call overwrites. */
  encode(text: string): Int32Array {
    this.#count = 0;
    if (text.includes('[') && SPECIAL_PATTERN.test(text)) {
      for (const [index, part] of text.split(SPECIAL_PATTERN).entries()) {
        if (index % 2 === 1) this.#push(this.#ids.get(part) ?? this.#unknownId);
        else this.#encodePlain(part);
      }
    } else {
      this.#encodePlain(text);
    }
    return this.#out.subarray(0, this.#count);
  }

  #encodePlain(text: string): void {
    if (PLAIN_ASCII.test(text)) {
      this.#encodeAscii(text.toLowerCase());
      return;
    }
    const normalised = text
      .replace(DROPPED, '')
      .replace(/\s/g, ' ')
      .replace(IDEOGRAPH, ' $& ')
      .toLowerCase()
      .normalize('NFD')
      .replace(COMBINING_MARK, '');
    for (const word of normalised.match(WORD_OR_MARK) ?? []) this.#encodeWord(word);
  }

  #encodeAscii(text: string): void {
    let start = -1;
    for (let at = 0; at < text.length; at++) {
      const kind = ASCII_CLASS[text.charCodeAt(at)];
      if (kind === 0) {
        if (start < 0) start = at;
        continue;
      }
      if (start >= 0) this.#encodeWord(text.slice(start, at));
      start = -1;
      if (kind === PUNCTUATION) this.#encodeWord(text[at] ?? '');
    }
    if (start >= 0) this.#encodeWord(text.slice(start));
  }

  #encodeWord(word: string): void {
    const whole = this.#ids.get(word);
    if (whole !== undefined) {
      this.#push(whole);
      return;
    }
    let pieces = this.#remembered.get(word);
    if (pieces === undefined) {
      pieces = this.#split(word);
      if (this.#remembered.size >= MAX_REMEMBERED_WORDS) this.#remembered.clear();
      if (word.length <= MAX_WORD_CHARS) this.#remembered.set(word, pieces);
    }
    for (const id of pieces) this.#push(id);
  }

  /** Longest piece first, over code points; a word that cannot be covered is one unknown token. */
  #split(word: string): readonly number[] {
    // Two UTF-16 units at most make a code point, so this spares the split of very long words.
    if (word.length > 2 * MAX_WORD_CHARS) return [this.#unknownId];
    const chars = Array.from(word);
    if (chars.length > MAX_WORD_CHARS) return [this.#unknownId];
    const pieces: number[] = [];
    for (let start = 0; start < chars.length; ) {
      let end = chars.length;
      let id: number | undefined;
      for (; end > start; end--) {
        const piece = chars.slice(start, end).join('');
        id = start === 0 ? this.#ids.get(piece) : this.#continuations.get(piece);
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.#unknownId];
      pieces.push(id);
      start = end;
    }
    return pieces;
  }

  #push(id: number): void {
    if (this.#count === this.#out.length) {
      const larger = new Int32Array(this.#out.length * 2);
      larger.set(this.#out);
      this.#out = larger;
    }
    this.#out[this.#count++] = id;
  }
}
