// The names a module exports, as far as its text shows them: comments, strings and templates are passed over, and
// nothing is run. A look before registering, not a parser: what it overlooks shows when the module is loaded.

const NAMED = /\bexport\s+(?:async\s+)?(?:function\s*\*?|class|const|let|var)\s*([\w$]+)/g;
const LISTED = /\bexport\s*\{([^}]*)\}/g;
const DEFAULT = /\bexport\s+default\b/;
/** CommonJS, also as bundlers write it. */
const COMMON_MEMBER = /\bexports\.([\w$]+)\s*=/g;
const COMMON_WHOLE = /\bmodule\.exports\s*=/;

export function exportedNames(source: string): ReadonlySet<string> {
  const code = withoutText(source);
  const names = new Set<string>();
  for (const [, name] of code.matchAll(NAMED)) if (name !== undefined) names.add(name);
  for (const [, list] of code.matchAll(LISTED)) {
    for (const entry of (list ?? '').split(',')) {
      const name = entry
        .trim()
        .split(/\s+as\s+/)
        .at(-1)
        ?.replace(/^type\s+/, '');
      if (name) names.add(name);
    }
  }
  for (const [, name] of code.matchAll(COMMON_MEMBER)) if (name !== undefined) names.add(name);
  if (DEFAULT.test(code) || COMMON_WHOLE.test(code)) names.add('default');
  return names;
}

/** Templates in templates beyond this are nobody's code. */
const DEEPEST = 64;

/** What stands before a slash that begins a regular expression; after anything else it divides. */
const BEFORE_PATTERN = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\breturn|\btypeof|\bcase|\bof|\bin|=>)\s*$/;

/** The source with its comments, strings and regular expressions emptied. Templates are emptied with what is in them. */
function withoutText(source: string): string {
  let code = '';
  let at = 0;
  while (at < source.length) {
    const two = source.slice(at, at + 2);
    const one = two[0] ?? '';
    if (two === '//') at = endOf(source, '\n', at);
    else if (two === '/*') at = endOf(source, '*/', at + 2);
    else if (one === '"' || one === "'" || one === '`') {
      at = endOfText(source, at + 1, one, 0);
      code += '""';
    } else if (one === '/' && BEFORE_PATTERN.test(code.slice(-12))) {
      at = endOfPattern(source, at + 1);
      code += '""';
    } else {
      code += one;
      at++;
    }
  }
  return code;
}

function endOf(source: string, mark: string, from: number): number {
  const found = source.indexOf(mark, from);
  return found < 0 ? source.length : found + mark.length;
}

function endOfText(source: string, from: number, quote: string, depth: number): number {
  if (depth > DEEPEST) return source.length;
  for (let at = from; at < source.length; at++) {
    const one = source[at];
    if (one === '\\') at++;
    else if (one === quote || (one === '\n' && quote !== '`')) return at + 1;
    else if (quote === '`' && one === '$' && source[at + 1] === '{')
      at = endOfHole(source, at + 2, depth) - 1;
  }
  return source.length;
}

/** Behind the brace that closes `${` of a template. */
function endOfHole(source: string, from: number, depth: number): number {
  let open = 1;
  for (let at = from; at < source.length; at++) {
    const one = source[at];
    if (one === '{') open++;
    else if (one === '}' && --open === 0) return at + 1;
    else if (one === '"' || one === "'" || one === '`') at = endOfText(source, at + 1, one, depth + 1) - 1;
  }
  return source.length;
}

function endOfPattern(source: string, from: number): number {
  let isInClass = false;
  for (let at = from; at < source.length; at++) {
    const one = source[at];
    if (one === '\\') at++;
    else if (one === '[') isInClass = true;
    else if (one === ']') isInClass = false;
    else if (one === '\n' || (one === '/' && !isInClass)) return at + 1;
  }
  return source.length;
}
