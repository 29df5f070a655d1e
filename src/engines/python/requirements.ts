// What a model directory says of the environment it needs: python_env.yaml, else conda.yaml, else requirements.txt.
// Reads files inside the directory only; conda's own packages are left out, as nothing but pip is used here.
import { readFile, realpath } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { parse } from 'yaml';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';

export interface Requirements {
  /** Such as `3.11.7`, where the model says it. */
  readonly pythonVersion?: string;
  /** Lines as pip takes them: requirements and options, without comments and without `-r`. */
  readonly lines: readonly string[];
}

/** Undefined where the directory says nothing. Throws INVALID_PARAMETER for files that cannot be understood. */
export async function readRequirements(folder: string): Promise<Requirements | undefined> {
  const read = (name: string) => readFile(join(folder, name), 'utf8').catch(() => undefined);
  const [environment, conda, plain] = await Promise.all([
    read('python_env.yaml'),
    read('conda.yaml'),
    read('requirements.txt'),
  ]);
  if (environment !== undefined) {
    const file = join(folder, 'python_env.yaml');
    const { python, dependencies } = parseMapping(environment, file);
    const lines = await expand(folder, toLines(dependencies, file), file);
    return { ...toVersion(python), lines };
  }
  if (conda !== undefined) {
    const file = join(folder, 'conda.yaml');
    const { dependencies } = parseMapping(conda, file);
    const entries = Array.isArray(dependencies) ? dependencies : [];
    const pip = entries.find((entry): entry is { pip: Json } => isJsonObject(entry) && 'pip' in entry)?.pip;
    const [, version] =
      entries.map((entry) => /^python\s*=+\s*([\d.]+)/.exec(String(entry))).find(Boolean) ?? [];
    return { ...toVersion(version), lines: await expand(folder, toLines(pip, file), file) };
  }
  if (plain === undefined) return undefined;
  return { lines: await expand(folder, plain.split('\n'), join(folder, 'requirements.txt')) };
}

/** Those that name a package; options and addresses cannot be compared with what is installed. */
export function namedRequirements({ lines }: Requirements): string[] {
  return lines.filter((line) => /^[A-Za-z0-9]/.test(line) && !/^[A-Za-z+]+:\/\//.test(line));
}

async function expand(folder: string, lines: readonly string[], from: string, depth = 0): Promise<string[]> {
  const all: string[] = [];
  for (const whole of joinContinued(lines)) {
    const line = whole.replace(/(^|\s)#.*$/, '').trim();
    if (line === '') continue;
    const [, name] = /^(?:-r|--requirement)(?:\s+|=)(\S+)$/.exec(line) ?? [];
    const [, constraints] = /^(?:-c|--constraint)(?:\s+|=)(\S+)$/.exec(line) ?? [];
    const [, links] = /^(?:-f|--find-links)(?:\s+|=)(\S+)$/.exec(line) ?? [];
    if (name !== undefined) {
      if (depth > 4) throw invalid(from, `it includes files of files (${name})`);
      const text = await readInside(folder, name, from);
      all.push(...(await expand(folder, text.split('\n'), name, depth + 1)));
    } else if (constraints !== undefined) {
      await readInside(folder, constraints, from);
      all.push(`-c ${resolve(folder, constraints)}`);
    } else if (links !== undefined && !/^[a-z+]+:/i.test(links)) {
      // Counted from the model, wherever pip is given the list.
      all.push(`--find-links ${resolve(folder, links)}`);
    } else all.push(line);
  }
  return all;
}

function joinContinued(lines: readonly string[]): string[] {
  return lines
    .join('\n')
    .replaceAll(/\\\r?\n/g, ' ')
    .split('\n');
}

async function readInside(folder: string, name: string, from: string): Promise<string> {
  const path = resolve(folder, name);
  // Links are followed before it is decided: the file itself must lie in the directory.
  const [root, real] = await Promise.all([realpath(folder), realpath(path).catch(() => undefined)]);
  if (real === undefined)
    throw invalid(from, `it names the file ${JSON.stringify(name)}, which is not there`);
  if (!real.startsWith(root + sep)) {
    throw invalid(from, `it names the file ${JSON.stringify(name)}, which lies outside of the model`);
  }
  return readFile(real, 'utf8');
}

function parseMapping(text: string, file: string): { readonly [key: string]: Json } {
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 100, logLevel: 'error' });
  } catch (cause) {
    throw invalid(file, cause instanceof Error ? (cause.message.split('\n', 1)[0] ?? '') : String(cause));
  }
  if (isJsonObject(value)) return value;
  throw invalid(file, 'it is not a mapping');
}

function toLines(value: Json | undefined, file: string): string[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value) && value.every((line) => typeof line === 'string')) return value;
  throw invalid(file, 'its dependencies are not a list of texts');
}

function toVersion(version: Json | undefined): { readonly pythonVersion?: string } {
  return version === undefined || version === null ? {} : { pythonVersion: String(version) };
}

function invalid(file: string, what: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `The file ${file} cannot be used: ${what}.`);
}
