// Reads the MLmodel file at the root of an MLflow model directory: flavours, signature, input example, metadata.
// Reads only. Which engine runs the model, and whether code may be run, is decided elsewhere.
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDocument } from 'yaml';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { refuseMembersOutside, staysInside } from './member-paths.ts';
import { invalid, show } from './refusal.ts';
import { type MlSignature, parseSignature } from './signature.ts';

export { toSignature } from './signature.ts';

export const MLMODEL = 'MLmodel';

export interface MlModel {
  /** The directory, as it was given. */
  readonly folder: string;
  /** By name (`python_function`, `sklearn`, ...), each as it stands in the file. */
  readonly flavors: Readonly<Record<string, JsonObject>>;
  readonly signature?: MlSignature;
  /** `saved_input_example_info`; `artifactPath` is relative to the directory. */
  readonly inputExample?: { readonly artifactPath: string; readonly type: string; readonly info: JsonObject };
  readonly mlflowVersion?: string;
  readonly metadata: JsonObject;
  /** All of the file. */
  readonly document: JsonObject;
}

/** A signature of a hundred thousand columns fits; the parser's time stays below a second. */
const MAX_BYTES = 2 * 1024 * 1024;
const MAX_ALIASES = 100;
const ENDLESS = /[[{](?:\s*[[{]){200}/;

/**
 * The MLmodel of a directory; undefined where there is none. Throws INVALID_PARAMETER for one that cannot be
 * understood, is too large, or names files outside the directory (absolute, with `..`, or through a link).
 */
export async function readMlModel(folder: string): Promise<MlModel | undefined> {
  const path = join(folder, MLMODEL);
  const size = await stat(path).then(
    (found) => (found.isFile() ? found.size : -1),
    () => undefined,
  );
  if (size === undefined) return undefined;
  if (size < 0) throw invalid(path, 'it is not a file');
  if (size > MAX_BYTES) throw invalid(path, `it has ${size} bytes; ${MAX_BYTES} are read at most`);
  // A message about what cannot be understood shows some of it.
  if (!(await staysInside(folder, MLMODEL)))
    throw invalid(path, 'it is a link that leads out of the directory of the model');
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw invalid(path, cause instanceof Error ? cause.message : String(cause), cause);
  });
  const model = parseMlModel(text, folder);
  await refuseMembersOutside(model);
  return model;
}

/** The same of a text; looks at no file. */
export function parseMlModel(text: string, folder: string): MlModel {
  const path = join(folder, MLMODEL);
  const document = parseYaml(text, path);
  const { flavors, signature, saved_input_example_info: example, mlflow_version: version } = document;
  if (!isJsonObject(flavors) || Object.keys(flavors).length === 0)
    throw invalid(path, `\`flavors\` is ${show(flavors)}; it must name at least one flavour`);
  const flavours = Object.fromEntries(
    Object.entries(flavors).map(([name, members]): [string, JsonObject] => {
      if (members === null) return [name, {}];
      if (isJsonObject(members)) return [name, members];
      throw invalid(path, `flavour \`${name}\` is ${show(members)}, not a mapping`);
    }),
  );
  const parsed = parseSignature(signature, path);
  return {
    folder,
    flavors: flavours,
    ...(parsed === undefined ? {} : { signature: parsed }),
    ...inputExample(example),
    ...(typeof version === 'string' ? { mlflowVersion: version } : {}),
    metadata: isJsonObject(document.metadata) ? document.metadata : {},
    document,
  };
}

function inputExample(info: Json | undefined): Pick<MlModel, 'inputExample'> {
  if (!isJsonObject(info) || typeof info.artifact_path !== 'string') return {};
  const type = typeof info.type === 'string' ? info.type : '';
  return { inputExample: { artifactPath: info.artifact_path, type, info } };
}

/** Plain YAML only: a tag is an instruction to build an object, and there is none to build here. */
function parseYaml(text: string, path: string): JsonObject {
  let value: unknown;
  // The parser would find out too, by running out of stack, after seconds.
  if (ENDLESS.test(text)) throw invalid(path, 'its lists are nested too deep');
  try {
    const document = parseDocument(text, { logLevel: 'error', schema: 'core' });
    const [problem] = [...document.errors, ...document.warnings];
    if (problem !== undefined) throw problem;
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    const [reason = ''] = (cause instanceof Error ? cause.message : String(cause)).split('\n', 1);
    throw invalid(path, reason.slice(0, 200).replace(/[.:]$/, ''), cause);
  }
  if (isJsonObject(value)) return value;
  throw invalid(path, `it is ${show(value)}, not a mapping`);
}
