// Reads the documentation as a reader does: links, headings, code blocks. Enough of Markdown for our own files.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..');

export interface Document {
  /** From the root of the repository: `docs/sql.md`. */
  readonly path: string;
  readonly text: string;
}

export interface CodeBlock {
  /** What stands after the opening fence: `sql run`. */
  readonly info: string;
  readonly code: string;
  readonly line: number;
}

export function readDocuments(): Document[] {
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' });
  const paths = [
    'README.md',
    'CONTRIBUTING.md',
    ...docs.filter((path) => path.endsWith('.md')).map((path) => `docs/${path}`),
  ];
  return paths.sort().map(readDocument);
}

export function readDocument(path: string): Document {
  return { path, text: readFileSync(join(ROOT, path), 'utf8') };
}

export function codeBlocks({ text }: Document): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: { info: string; line: number; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^```(.*)$/.exec(line);
    if (fence && open) {
      blocks.push({ info: open.info, code: open.lines.join('\n'), line: open.line });
      open = undefined;
    } else if (fence) open = { info: (fence[1] ?? '').trim(), line: index + 2, lines: [] };
    else open?.lines.push(line);
  }
  return blocks;
}

/** The text without code blocks: where links and headings are. */
export function prose({ text }: Document): string {
  return text.replace(/^```[\s\S]*?^```$/gm, '');
}

export interface Heading {
  readonly level: number;
  readonly title: string;
  /** The text below it, up to the next heading of its level or above. */
  readonly body: string;
}

export function headings(document: Document): Heading[] {
  const lines = document.text.split('\n');
  const found: { level: number; title: string; line: number }[] = [];
  let isCode = false;
  for (const [line, text] of lines.entries()) {
    if (text.startsWith('```')) isCode = !isCode;
    const heading = isCode ? null : /^(#+) (.*)$/.exec(text);
    if (heading) found.push({ level: heading[1]?.length ?? 0, title: heading[2] ?? '', line });
  }
  return found.map(({ level, title, line }, index) => {
    const end = found.slice(index + 1).find((next) => next.level <= level)?.line ?? lines.length;
    return { level, title, body: lines.slice(line + 1, end).join('\n') };
  });
}

/** Links that lead nowhere, as `path: target`. Addresses on the web are not asked. */
export function brokenLinks(documents: readonly Document[]): string[] {
  return documents.flatMap((document) => {
    const targets = [...prose(document).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target ?? '');
    return targets
      .filter((target) => !leadsSomewhere(document, target))
      .map((target) => `${document.path}: ${target}`);
  });
}

function leadsSomewhere(document: Document, target: string): boolean {
  if (/^[a-z]+:/.test(target)) return true;
  const [path = '', anchor] = target.split('#');
  const file = path === '' ? document.path : join(dirname(document.path), path);
  if (!existsSync(join(ROOT, file))) return false;
  if (anchor === undefined) return true;
  return headings(readDocument(file)).some(({ title }) => toAnchor(title) === anchor);
}

/** As GitHub makes it. */
function toAnchor(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}
