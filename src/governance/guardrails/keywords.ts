// Forbidden words and phrases: found in any case and width, as whole words, in one pass over the text however many
// there are (Aho-Corasick), and in a text that still grows. Not here: look-alike letters of other alphabets.

const WORD = /[\p{L}\p{N}\p{M}_]/u;
/** Written without spaces between words, or with endings joined on: a match inside a row of letters counts. */
const UNSPACED =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const INVISIBLE = /[\p{Default_Ignorable_Code_Point}\p{Cf}]/u;
const SPACE = /\s/u;
const HANGUL_SYLLABLE = /[\uac00-\ud7a3]/;

interface Keyword {
  readonly text: string;
  /** Code points after folding. */
  readonly length: number;
  readonly needsStart: boolean;
  readonly needsEnd: boolean;
}

interface Node {
  readonly next: Map<number, Node>;
  readonly depth: number;
  /** The longest proper suffix that also begins a keyword. */
  fallback: Node | undefined;
  keyword: Keyword | undefined;
  /** The nearest node down the fallbacks where a keyword ends. */
  shorter: Node | undefined;
}

const createNode = (depth: number): Node => ({
  next: new Map(),
  depth,
  fallback: undefined,
  keyword: undefined,
  shorter: undefined,
});

export class KeywordMatcher {
  readonly #root = createNode(0);
  readonly #longest: number;

  /** Empty ones are left out. White space inside a phrase stands for any white space. */
  constructor(keywords: readonly string[]) {
    let longest = 0;
    for (const text of keywords) longest = Math.max(longest, this.#add(text));
    this.#longest = longest;
    this.#link();
  }

  /** The first keyword of the text, as it was configured; undefined where there is none. */
  find(text: string): string | undefined {
    const scan = this.scan();
    return scan.push(text) ?? scan.end();
  }

  scan(): KeywordScan {
    return new KeywordScan(this.#root, this.#longest);
  }

  #add(text: string): number {
    const points = [...foldKeyword(text)];
    const first = points[0];
    const last = points.at(-1);
    if (first === undefined || last === undefined) return 0;
    let node = this.#root;
    for (const point of points) {
      const code = point.codePointAt(0) ?? 0;
      let next = node.next.get(code);
      if (!next) node.next.set(code, (next = createNode(node.depth + 1)));
      node = next;
    }
    node.keyword ??= { text, length: points.length, needsStart: isJoining(first), needsEnd: isJoining(last) };
    return points.length;
  }

  #link(): void {
    const nodes = [this.#root];
    for (const node of nodes) {
      for (const [code, child] of node.next) {
        let fallback = node.fallback;
        while (fallback && !fallback.next.has(code)) fallback = fallback.fallback;
        child.fallback = fallback?.next.get(code) ?? this.#root;
        child.shorter = child.fallback.keyword ? child.fallback : child.fallback.shorter;
        nodes.push(child);
      }
    }
  }
}

/** One text, given piece by piece. */
export class KeywordScan {
  readonly #root: Node;
  readonly #longest: number;
  #node: Node;
  /** The last code points and where in the text they came from; enough of them for the longest keyword. */
  #codes: number[] = [];
  #offsets: number[] = [];
  /** UTF-16 units read. */
  #read = 0;
  #halfPair = '';
  #isAfterSpace = true;
  /** Ends here, unless the next character makes it the beginning of a longer word. */
  #candidate: Keyword | undefined;

  constructor(root: Node, longest: number) {
    this.#root = root;
    this.#longest = longest;
    this.#node = root;
  }

  /** The keyword that was found in all of the text so far, once. */
  push(piece: string): string | undefined {
    const text = this.#halfPair + piece;
    this.#halfPair = '';
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at) ?? 0;
      if (code >= 0xd800 && code <= 0xdbff && at === text.length - 1) {
        this.#halfPair = text.charAt(at);
        return undefined;
      }
      const found = code < 0x80 ? this.#takeAscii(code) : this.#takeOther(code);
      if (found !== undefined) return found;
      const width = code > 0xffff ? 2 : 1;
      at += width;
      this.#read += width;
    }
    return undefined;
  }

  end(): string | undefined {
    return this.#candidate?.text;
  }

  /** Offset in the whole text from which on a keyword may still be on its way. */
  get pendingFrom(): number {
    if (this.#node.depth === 0) return this.#read;
    return this.#offsets.at(-this.#node.depth) ?? this.#read;
  }

  #takeAscii(code: number): string | undefined {
    if (code >= 65 && code <= 90) return this.#take(code + 32);
    return code === 32 || (code >= 9 && code <= 13) ? this.#takeSpace() : this.#take(code);
  }

  #takeOther(code: number): string | undefined {
    for (const point of foldCharacter(String.fromCodePoint(code))) {
      const folded = point.codePointAt(0) ?? 0;
      const found = SPACE.test(point) ? this.#takeSpace() : this.#take(folded);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #takeSpace(): string | undefined {
    if (this.#isAfterSpace) return undefined;
    const found = this.#take(32);
    this.#isAfterSpace = true;
    return found;
  }

  #take(code: number): string | undefined {
    if (this.#candidate && !isJoiningCode(code)) return this.#candidate.text;
    this.#candidate = undefined;
    this.#isAfterSpace = false;
    this.#codes.push(code);
    this.#offsets.push(this.#read);
    if (this.#codes.length > 2 * this.#longest + 64) {
      this.#codes = this.#codes.slice(-this.#longest - 1);
      this.#offsets = this.#offsets.slice(-this.#longest - 1);
    }
    let node: Node | undefined = this.#node;
    while (node && !node.next.has(code)) node = node.fallback;
    this.#node = node?.next.get(code) ?? this.#root;
    return this.#ending();
  }

  /** The longest keyword that ends here; one that needs the end of a word has to wait for the next character. */
  #ending(): string | undefined {
    for (let node: Node | undefined = this.#node; node; node = node.shorter) {
      const { keyword } = node;
      if (!keyword) continue;
      const before = this.#codes.at(-keyword.length - 1);
      if (keyword.needsStart && before !== undefined && isJoiningCode(before)) continue;
      if (!keyword.needsEnd) return keyword.text;
      this.#candidate ??= keyword;
    }
    return undefined;
  }
}

function isJoiningCode(code: number): boolean {
  if (code < 0x80) {
    const lower = code | 32;
    return (lower >= 97 && lower <= 122) || (code >= 48 && code <= 57) || code === 95;
  }
  return isJoining(String.fromCodePoint(code));
}

function isJoining(point: string): boolean {
  return WORD.test(point) && !UNSPACED.test(point);
}

/** Compatibility forms, accents apart from their letters, one case. Character by character, as a text arrives. */
function foldCharacter(character: string): string {
  if (INVISIBLE.test(character)) return '';
  const apart = HANGUL_SYLLABLE.test(character) ? character : character.normalize('NFKD');
  return apart.toUpperCase().toLowerCase();
}

function foldKeyword(text: string): string {
  return [...text].map(foldCharacter).join('').replace(/\s+/gu, ' ').trim();
}
