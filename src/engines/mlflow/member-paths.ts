// The files that an MLmodel names: each must lie inside the model's directory, also after links are followed.
import { realpath } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve, sep, win32 } from 'node:path';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { MlModel } from './mlmodel.ts';

/**
 * Members of flavours that MLflow's loaders join with the directory. Not among them: `model_code_path`, of which
 * they take the last part only, and the `uri` of an artifact, which is where it once came from.
 */
const PATH_MEMBERS = [
  'code',
  'components',
  'config',
  'conda',
  'data',
  'env',
  'env_file',
  'extra_files',
  'model',
  'model_binary',
  'model_data',
  'model_dir',
  'model_file',
  'model_path',
  'path',
  'pickled_model',
  'processor',
  'python_model',
  'python_env',
  'tokenizer',
  'virtualenv',
];

interface MemberPath {
  /** `flavors.python_function.data` */
  readonly member: string;
  readonly path: string;
}

/** Whether a file of the directory is in it after links are followed; also true for one that is not there. */
export async function staysInside(folder: string, name: string): Promise<boolean> {
  const root = await realpath(folder);
  const real = await realpath(join(root, name)).catch(() => undefined);
  return real === undefined || !leaves(relative(root, real));
}

/** Throws INVALID_PARAMETER that names the member and the path. */
export async function refuseMembersOutside(model: MlModel): Promise<void> {
  for (const { member, path } of memberPaths(model)) {
    if (!isInside(path)) throw outside(model, member, path, 'which is not inside the directory of the model');
    if (!(await staysInside(model.folder, path)))
      throw outside(model, member, path, 'a link that leads out of the directory of the model');
  }
}

/** Whether a path names something in a directory by its text: relative, without `..` and without a drive. */
export function isInside(path: string): boolean {
  if (path.includes('\0') || isAbsolute(path) || win32.isAbsolute(path) || /^[a-z]:/i.test(path))
    return false;
  return !path.split(/[\\/]/).includes('..') && !leaves(relative('/model', resolve('/model', path)));
}

function leaves(path: string): boolean {
  return path === '..' || path.startsWith(`..${sep}`) || isAbsolute(path);
}

function memberPaths({ flavors, inputExample }: MlModel): MemberPath[] {
  const found = Object.entries(flavors).flatMap(([flavour, members]) =>
    PATH_MEMBERS.flatMap((name) => pathsOf(`flavors.${flavour}.${name}`, members[name])),
  );
  for (const [flavour, members] of Object.entries(flavors)) found.push(...artifactPaths(flavour, members));
  if (inputExample !== undefined)
    found.push({ member: 'saved_input_example_info.artifact_path', path: inputExample.artifactPath });
  return found;
}

/** A text is a path; of a mapping (`env: {conda, virtualenv}`) and of a list each text is one. */
function pathsOf(member: string, value: Json | undefined): MemberPath[] {
  if (typeof value === 'string') return isAddress(value) ? [] : [{ member, path: value }];
  if (Array.isArray(value)) return value.flatMap((item, index) => pathsOf(`${member}[${index}]`, item));
  if (!isJsonObject(value) || member.split('.').length > 3) return [];
  return ['conda', 'virtualenv', 'path'].flatMap((name) => pathsOf(`${member}.${name}`, value[name]));
}

/** `artifacts: {name: {path: artifacts/x, uri: ...}}` */
function artifactPaths(flavour: string, { artifacts }: JsonObject): MemberPath[] {
  if (!isJsonObject(artifacts)) return [];
  return Object.entries(artifacts).flatMap(([name, artifact]) =>
    isJsonObject(artifact) ? pathsOf(`flavors.${flavour}.artifacts.${name}`, artifact.path) : [],
  );
}

/** `runs:/...`: no file of the directory, and never read here. */
function isAddress(text: string): boolean {
  return /^[a-z][a-z0-9+.-]+:\//i.test(text) && !text.toLowerCase().startsWith('file:');
}

function outside(model: MlModel, member: string, path: string, what: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `MLmodel in ${model.folder} says ${member}: ${JSON.stringify(path.slice(0, 200))}, ${what}. ` +
      'Put the file into the directory and name it by its path from there.',
    { details: { member, path: path.slice(0, 200) } },
  );
}
