// `duckserve models register`: options read, and what was found shown as a table. Registering itself is the registry's.
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { TASKS, type Task } from '#core/call.ts';
import {
  DUCKDB_COLUMN_TYPES,
  ENGINE_KINDS,
  type EngineKind,
  type ModelInspection,
  type ModelVersion,
  PROVIDERS,
  type SignatureColumn,
} from '#core/endpoint.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';

interface Flags {
  readonly alias?: string;
  readonly description?: string;
  readonly engine?: EngineKind;
  readonly task?: Task;
  readonly option?: JsonObject;
  readonly allowCode?: boolean;
  readonly convert?: boolean;
  /** `--no-endpoint` makes it false. */
  readonly endpoint: boolean;
}

const LOCAL_ENGINES = ENGINE_KINDS.filter((kind) => !(PROVIDERS as readonly string[]).includes(kind));
/** Columns of one side that are shown; the rest is counted. */
const MOST_COLUMNS = 12;

export function addRegister(group: Command, context: Context): void {
  withCommonOptions(group.command('register <name> <path>'))
    .description(
      'register a model as the next version of NAME: a file, an MLflow directory, a .zip or .tar.gz',
    )
    .option('--alias <alias>', 'a name for this version, such as champion')
    .option('--description <text>', 'what this version is')
    .addOption(
      new Option('--engine <engine>', 'what runs it, instead of what is found').choices(LOCAL_ENGINES),
    )
    .addOption(new Option('--task <task>', 'what it does, instead of what is found').choices(TASKS))
    .option('--option <name=value>', 'a setting of its engine; may be repeated', readOption)
    .option('--allow-code', 'take models that are programs: Python, pickles, modules')
    .option('--convert', 'turn a scikit-learn model into one that needs no Python, where that can be done')
    .option('--no-endpoint', 'make no endpoint of the same name')
    .action(async (name: string, path: string, flags: Flags, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        let found: ModelInspection | undefined;
        const version = await registry.registerModel(name, resolve(path), {
          ...optional('alias', flags.alias),
          ...optional('description', flags.description),
          ...optional('engine', flags.engine),
          ...optional('task', flags.task),
          ...optional('options', flags.option),
          ...optional('allowCode', flags.allowCode),
          ...optional('convert', flags.convert),
          ...(flags.endpoint ? {} : { createsEndpoint: false }),
          onFound: (inspection) => {
            found = inspection;
          },
        });
        const alias = flags.alias === undefined ? '' : `, alias ${flags.alias}`;
        context.say(
          `Registered ${version.model} version ${version.version} (${version.engine}, ${version.task}${alias}).`,
        );
        await context.printSheet(listSheet(textColumns('what', 'found'), describe(version, found)), 'table');
        for (const note of found?.notes ?? []) context.say(`Note: ${note}`);
      });
    });
}

function optional<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]: V });
}

/** `threads=2`, `labels=["a","b"]`: what is JSON is taken as JSON, else it is a text. */
function readOption(text: string, before: JsonObject = {}): JsonObject {
  const at = text.indexOf('=');
  if (at <= 0) throw new InvalidArgumentError(`'${text}' is not of the form name=value.`);
  const value = text.slice(at + 1);
  let parsed: Json = value;
  try {
    parsed = JSON.parse(value) as Json;
  } catch {
    // A plain text.
  }
  return { ...before, [text.slice(0, at)]: parsed };
}

function describe(version: ModelVersion, found: ModelInspection | undefined): (readonly Json[])[] {
  const { signature } = version;
  const rows: (readonly Json[])[] = [];
  if (found?.flavour !== undefined) rows.push(['flavour', found.flavour]);
  rows.push(['engine', version.engine], ['task', version.task]);
  for (const [index, column] of listed(signature?.inputs).entries())
    rows.push([index === 0 ? 'takes' : '', column]);
  for (const [index, column] of listed(signature?.outputs).entries())
    rows.push([index === 0 ? 'gives' : '', column]);
  for (const [index, param] of (signature?.params ?? []).entries())
    rows.push([
      index === 0 ? 'parameters' : '',
      `${param.name} ${DUCKDB_COLUMN_TYPES[param.type]}, default ${JSON.stringify(param.default)}`,
    ]);
  const options = Object.entries(version.options);
  for (const [index, [name, value]] of options.entries())
    rows.push([
      index === 0 ? 'options' : '',
      `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
    ]);
  rows.push(['size', sizeText(version.sizeBytes)], ['sha256', version.sha256]);
  return rows;
}

function listed(columns: readonly SignatureColumn[] = []): string[] {
  const shown = columns.slice(0, MOST_COLUMNS).map((column) => `${column.name} ${typeText(column)}`);
  const rest = columns.length - shown.length;
  return rest > 0 ? [...shown, `and ${rest} more`] : shown;
}

function typeText({ type, shape, width, required }: SignatureColumn): string {
  const sizes = shape ?? (width !== undefined && width >= 0 ? [width] : []);
  const dims = sizes.map((size) => `[${size < 0 ? '' : size}]`).join('');
  return `${DUCKDB_COLUMN_TYPES[type]}${dims}${required ? '' : ', optional'}`;
}

export function sizeText(bytes: number): string {
  if (bytes <= 0) return '-';
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1_048_576) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1_048_576).toFixed(1)} MiB`;
}
