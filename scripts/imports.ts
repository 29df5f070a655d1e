// Finds the import statements of a TypeScript or JavaScript file with a small tokenizer. For the floor check and
// the build; TypeScript 7 has no parser to call from JavaScript. Not a parser: it knows names, quotes and brackets.

export type ImportKind = 'static' | 'type' | 'dynamic' | 'url';

export interface ImportStatement {
  readonly kind: ImportKind;
  /** Null for a dynamic import of something that is not a plain text. */
  readonly specifier: string | null;
  /** Where the text between the quotes begins and ends in the source. */
  readonly start: number;
  readonly end: number;
  readonly line: number;
}

export interface CodeToken {
  readonly kind: 'name' | 'text' | 'mark';
  readonly value: string;
  readonly start: number;
  readonly end: number;
}

// A slash after one of these begins a regular expression; after a name, a number or a closing bracket it divides.
const REGEX_MAY_FOLLOW = /^(return|typeof|case|in|of|delete|void|throw|new|await|yield|else|do)$/;
const NAME = /[\p{ID_Start}$_#@][\p{ID_Continue}$\u200c\u200d]*|\d[\w.]*/uy;

/** Names, plain texts and punctuation; comments, templates and regular expressions are left out. */
export function tokenizeCode(source: string): CodeToken[] {
  const tokens: CodeToken[] = [];
  // One entry for each open `${`: how many curly brackets are open inside it.
  const templates: number[] = [];
  let at = source.startsWith('#!') ? endOfLine(source, 0) : 0;
  while (at < source.length) {
    const char = source[at] as string;
    const next = source[at + 1];
    if (/\s/.test(char)) at++;
    else if (char === '/' && next === '/') at = endOfLine(source, at);
    else if (char === '/' && next === '*') at = after(source, '*/', at + 2);
    else if (char === '/' && beginsRegex(tokens.at(-1))) {
      at = endOfRegex(source, at);
      tokens.push({ kind: 'mark', value: ')', start: at, end: at });
    } else if (char === "'" || char === '"') {
      const end = endOfText(source, at);
      tokens.push({ kind: 'text', value: source.slice(at + 1, end - 1), start: at + 1, end: end - 1 });
      at = end;
    } else if (char === '`') at = intoTemplate(source, at + 1, tokens, templates);
    else if (char === '}' && templates.at(-1) === 0) {
      templates.pop();
      tokens.push({ kind: 'mark', value: '}', start: at, end: at + 1 });
      at = intoTemplate(source, at + 1, tokens, templates);
    } else {
      NAME.lastIndex = at;
      const name = NAME.exec(source)?.[0];
      const value = name ?? char;
      tokens.push({ kind: name === undefined ? 'mark' : 'name', value, start: at, end: at + value.length });
      const open = templates.length - 1;
      if (open >= 0 && value === '{') templates[open] = (templates[open] ?? 0) + 1;
      if (open >= 0 && value === '}') templates[open] = (templates[open] ?? 0) - 1;
      at += value.length;
    }
  }
  return tokens;
}

export function findImports(source: string): ImportStatement[] {
  const tokens = tokenizeCode(source);
  const found: ImportStatement[] = [];
  const note = (kind: ImportKind, token: CodeToken | undefined, at: CodeToken) =>
    found.push({
      kind,
      specifier: token?.kind === 'text' ? token.value : null,
      start: token?.start ?? at.start,
      end: token?.end ?? at.end,
      line: source.slice(0, at.start).split('\n').length,
    });
  for (const [index, token] of tokens.entries()) {
    if (token.kind !== 'name') continue;
    const before = tokens[index - 1]?.value;
    const next = tokens[index + 1];
    if (token.value === 'import' && before !== '.') {
      if (next?.value === '(') {
        const argument = tokens[index + 2];
        const isPlain = argument?.kind === 'text' && /^[),]$/.test(tokens[index + 3]?.value ?? '');
        note(before === 'typeof' ? 'type' : 'dynamic', isPlain ? argument : undefined, token);
      } else if (next?.kind === 'text') note('static', next, token);
      else if (next && next.value !== '.') {
        const text = textAfterFrom(tokens, index + 1);
        if (text) note(isTypeOnly(tokens, index + 1) ? 'type' : 'static', text, token);
      }
    } else if (token.value === 'export' && before !== '.') {
      const isType = next?.value === 'type';
      const opening = tokens[index + (isType ? 2 : 1)];
      if (opening?.value !== '{' && opening?.value !== '*') continue;
      const text = textAfterFrom(tokens, index + 1);
      if (text) note(isType ? 'type' : 'static', text, token);
    } else if (token.value === 'URL' && before === 'new' && next?.value === '(') {
      const argument = tokens[index + 2];
      const rest = tokens.slice(index + 3, index + 9).map(({ value }) => value);
      if (argument?.kind === 'text' && rest.join('').startsWith(',import.meta.url'))
        note('url', argument, token);
    }
  }
  return found;
}

/** The text of `from '...'` of the statement that begins here; undefined when it has none. */
function textAfterFrom(tokens: readonly CodeToken[], start: number): CodeToken | undefined {
  for (let index = start; index < tokens.length; index++) {
    const { kind, value } = tokens[index] as CodeToken;
    if (kind === 'name' && value === 'from' && tokens[index + 1]?.kind === 'text') return tokens[index + 1];
    if (kind === 'text' || /^[;=(]$/.test(value)) return undefined;
    if (value === '}' && tokens[index + 1]?.value !== 'from') return undefined;
  }
  return undefined;
}

function isTypeOnly(tokens: readonly CodeToken[], index: number): boolean {
  const following = tokens[index + 1]?.value;
  return tokens[index]?.value === 'type' && following !== 'from' && following !== ',';
}

function beginsRegex(previous: CodeToken | undefined): boolean {
  if (!previous || previous.kind === 'text') return previous === undefined;
  return previous.kind === 'name' ? REGEX_MAY_FOLLOW.test(previous.value) : !/^[)\]}]$/.test(previous.value);
}

function endOfLine(source: string, at: number): number {
  const end = source.indexOf('\n', at);
  return end < 0 ? source.length : end;
}

function after(source: string, mark: string, at: number): number {
  const end = source.indexOf(mark, at);
  return end < 0 ? source.length : end + mark.length;
}

function endOfText(source: string, at: number): number {
  const quote = source[at];
  for (let end = at + 1; end < source.length; end++) {
    if (source[end] === '\\') end++;
    else if (source[end] === quote) return end + 1;
  }
  return source.length;
}

function endOfRegex(source: string, at: number): number {
  let isInClass = false;
  for (let end = at + 1; end < source.length; end++) {
    const char = source[end];
    if (char === '\\') end++;
    else if (char === '[') isInClass = true;
    else if (char === ']') isInClass = false;
    else if (char === '\n') return end;
    else if (char === '/' && !isInClass) {
      let flags = end + 1;
      while (/[a-z]/.test(source[flags] ?? '')) flags++;
      return flags;
    }
  }
  return source.length;
}

/** Skips the text of a template up to its end or to the code of a `${`. */
function intoTemplate(source: string, at: number, tokens: CodeToken[], templates: number[]): number {
  for (let end = at; end < source.length; end++) {
    if (source[end] === '\\') end++;
    else if (source[end] === '`') {
      tokens.push({ kind: 'mark', value: ')', start: end, end: end + 1 });
      return end + 1;
    } else if (source[end] === '$' && source[end + 1] === '{') {
      templates.push(0);
      tokens.push({ kind: 'mark', value: '{', start: end, end: end + 2 });
      return end + 2;
    }
  }
  return source.length;
}
