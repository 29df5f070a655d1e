// Gives calls of ai_query and predict the type of their column before DuckDB binds the statement: a scalar
// function has one return type, while theirs follows from returnType, responseFormat, failOnError or the
// model's signature. Also spells Spark's named_struct('a', 1) and array('a', 'b') the way DuckDB does. All other
// text stays as it is.

import { ServingError } from '#core/errors.ts';
import type { EndpointDescription } from '#functions/function.ts';
import { parseResponseFormat } from '#functions/model-parameters.ts';
import { predictionType, predictVariant } from '#functions/predict.ts';
import { parseSqlType, toDuckDbType } from '#functions/sql-type.ts';
import { closingIndex, type Token } from './lexer.ts';

export interface RewriteContext {
  /** What a literal endpoint name is; undefined when there is none (the call itself will say so). */
  describe(endpoint: string): EndpointDescription | undefined;
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

export interface Argument {
  readonly name: string | undefined;
  /** Tokens of the value. */
  readonly tokens: readonly Token[];
}

const QUERY_PARAMETERS = [
  'endpoint',
  'request',
  'returntype',
  'failonerror',
  'modelparameters',
  'responseformat',
  'cache',
];
const QUERIES = new Set(['select', 'with', 'from', 'values', 'table']);
const CLAUSES = new Set([
  'select',
  'from',
  'where',
  'group',
  'order',
  'having',
  'limit',
  'qualify',
  'window',
  'values',
  'returning',
  'set',
  'on',
  'using',
]);
/** Reserved words that may follow a column, so that none of them can be its name. */
const AFTER_COLUMNS = new Set([
  'from',
  'where',
  'group',
  'order',
  'having',
  'limit',
  'offset',
  'fetch',
  'qualify',
  'window',
  'using',
  'union',
  'except',
  'intersect',
]);

/** Text with the calls replaced; the same text when there are none. */
export function rewriteCalls(text: string, tokens: readonly Token[], context: RewriteContext): string {
  const edits: Edit[] = [];
  for (let index = 0; index + 1 < tokens.length; index++) {
    const token = tokens[index] as Token;
    if (token.kind !== 'word' || tokens[index + 1]?.text !== '(' || tokens[index - 1]?.text === '.') continue;
    const close = closingIndex(tokens, index + 1);
    if (token.value === 'ai_query') edits.push(...queryEdits(tokens, index, close, context));
    else if (token.value === 'predict') edits.push(...predictEdits(tokens, index, close, context));
    else if (token.value === 'named_struct') edits.push(...namedStructEdits(tokens, index, close));
    else if (token.value === 'array') edits.push(...arrayEdits(tokens, index));
  }
  if (edits.length === 0) return text;
  edits.sort((left, right) => left.start - right.start);
  let result = '';
  let at = 0;
  for (const edit of edits) {
    result += text.slice(at, edit.start) + edit.text;
    at = edit.end;
  }
  return result + text.slice(at);
}

function queryEdits(tokens: readonly Token[], index: number, close: number, context: RewriteContext): Edit[] {
  const call = queryArguments(argumentsOf(tokens, index + 1, close));
  const declared = declaredType(call);
  const endpoint = literalText(call.endpoint);
  const description = endpoint === undefined ? undefined : context.describe(endpoint);
  const type = declared ?? (description ? typeByTask(description) : 'VARCHAR');
  if (literalWord(call.failonerror) === 'false') {
    const struct = `STRUCT(response ${type}, result ${type}, "errorMessage" VARCHAR)`;
    return cast(tokens, index, close, '_ai_query_try', struct);
  }
  if (type === 'VARCHAR') return [];
  if (type === 'FLOAT[]' && declared === undefined)
    return renamed(tokens, index, close, '_ai_query_embedding');
  return cast(tokens, index, close, '_ai_query_json', type);
}

function declaredType(call: Readonly<Record<string, Argument>>): string | undefined {
  if (call.returntype && literalWord(call.returntype) !== 'null') {
    const text = literalText(call.returntype);
    if (text === undefined) {
      throw new ServingError(
        'UNSUPPORTED_RETURN_TYPE',
        "ai_query: returnType must be a text literal such as 'STRUCT<name: STRING>'.",
      );
    }
    return toDuckDbType(parseSqlType(text));
  }
  const format = literalText(call.responseformat);
  const parsed = format === undefined ? undefined : parseResponseFormat(format);
  return parsed?.type ? toDuckDbType(parsed.type) : undefined;
}

function typeByTask(description: EndpointDescription): string {
  if (description.task === 'llm/v1/embeddings') return 'FLOAT[]';
  if (description.task === 'predict') return predictionType(description.signature) ?? 'JSON';
  return 'VARCHAR';
}

function predictEdits(
  tokens: readonly Token[],
  index: number,
  close: number,
  context: RewriteContext,
): Edit[] {
  const [first] = argumentsOf(tokens, index + 1, close);
  const endpoint = literalText(first);
  const description = endpoint === undefined ? undefined : context.describe(endpoint);
  const type = predictionType(description?.signature);
  if (type === undefined) return [];
  const variant = predictVariant(type);
  if (variant === undefined) return cast(tokens, index, close, 'predict', type);
  const needsCast = type === 'INTEGER' || type === 'FLOAT';
  return needsCast ? cast(tokens, index, close, variant, type) : renamed(tokens, index, close, variant);
}

function namedStructEdits(tokens: readonly Token[], index: number, close: number): Edit[] {
  const name = tokens[index] as Token;
  const parts = argumentsOf(tokens, index + 1, close);
  const edits: Edit[] = [{ start: name.start, end: name.end, text: 'struct_pack' }];
  if (parts.length % 2 !== 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `named_struct takes pairs of a name and a value; it was given ${parts.length} arguments.`,
    );
  }
  for (let at = 0; at < parts.length; at += 2) {
    const key = parts[at]?.tokens[0];
    const value = parts[at + 1]?.tokens[0];
    const text = literalText(parts[at]);
    if (
      text === undefined ||
      !key ||
      !value ||
      parts[at]?.name !== undefined ||
      parts[at + 1]?.name !== undefined
    ) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `named_struct: the name of a field must be a text literal and a value must follow, as in named_struct('a', 1); it is ${key?.text ?? 'missing'}.`,
      );
    }
    edits.push({ start: key.start, end: value.start, text: `"${text.replaceAll('"', '""')}" := ` });
  }
  return edits;
}

/** ARRAY('a', 'b') is a list; ARRAY(SELECT ...) is DuckDB's own. */
function arrayEdits(tokens: readonly Token[], index: number): Edit[] {
  const name = tokens[index] as Token;
  const first = tokens[index + 2];
  const isQuery = first?.text === '(' || (first?.kind === 'word' && QUERIES.has(first.value));
  return isQuery ? [] : [{ start: name.start, end: name.end, text: 'list_value' }];
}

/** Arguments between the bracket at `open` and `close`, split at commas outside of inner brackets. */
export function argumentsOf(tokens: readonly Token[], open: number, close: number): Argument[] {
  const found: Argument[] = [];
  let first = open + 1;
  for (let index = open + 1; index <= close; index++) {
    const token = tokens[index] as Token;
    const isEnd = index === close || (token.kind === 'symbol' && token.text === ',');
    if (isEnd) {
      const part = tokens.slice(first, index);
      if (part.length > 0) found.push(toArgument(part));
      first = index + 1;
    } else if (token.kind === 'symbol' && (token.text === '(' || token.text === '[' || token.text === '{')) {
      index = closingIndex(tokens, index);
    }
  }
  return found;
}

function toArgument(part: readonly Token[]): Argument {
  const [name, arrow] = part;
  const isNamed = name?.kind === 'word' && (arrow?.text === '=>' || arrow?.text === ':=');
  return isNamed ? { name: name.value, tokens: part.slice(2) } : { name: undefined, tokens: part };
}

function queryArguments(given: readonly Argument[]): Readonly<Record<string, Argument>> {
  const call: Record<string, Argument> = {};
  given.forEach((argument, position) => {
    const name = argument.name ?? QUERY_PARAMETERS[position];
    if (name !== undefined) call[name] = argument;
  });
  return call;
}

function literalText(argument: Argument | undefined): string | undefined {
  const [token, ...rest] = argument?.tokens ?? [];
  return token?.kind === 'string' && rest.length === 0 ? token.value : undefined;
}

function literalWord(argument: Argument | undefined): string | undefined {
  const [token, ...rest] = argument?.tokens ?? [];
  return token?.kind === 'word' && rest.length === 0 ? token.value : undefined;
}

function renamed(tokens: readonly Token[], index: number, close: number, name: string): Edit[] {
  return wrapped(tokens, index, close, name, '');
}

function cast(tokens: readonly Token[], index: number, close: number, name: string, type: string): Edit[] {
  return wrapped(tokens, index, close, `CAST(${name}`, ` AS ${type})`);
}

/** A column that is just this call keeps the name of the function as its heading. */
function wrapped(
  tokens: readonly Token[],
  index: number,
  close: number,
  before: string,
  after: string,
): Edit[] {
  const name = tokens[index] as Token;
  const end = (tokens[close] as Token).end;
  const alias = isWholeColumn(tokens, index, close) ? ` AS ${name.value}` : '';
  return [
    { start: name.start, end: name.end, text: before },
    { start: end, end, text: after + alias },
  ];
}

function isWholeColumn(tokens: readonly Token[], index: number, close: number): boolean {
  const before = tokens[index - 1];
  const after = tokens[close + 1];
  const opens =
    before?.kind === 'word' ? before.value === 'select' || before.value === 'distinct' : before?.text === ',';
  const closes =
    after === undefined ||
    after.text === ',' ||
    after.text === ')' ||
    (after.kind === 'word' && AFTER_COLUMNS.has(after.value));
  return opens && closes && clauseAt(tokens, index) === 'select';
}

/** The clause keyword that governs a place, looking back over whole brackets; `(` when it is inside of one. */
function clauseAt(tokens: readonly Token[], index: number): string {
  let depth = 0;
  for (let at = index - 1; at >= 0; at--) {
    const token = tokens[at] as Token;
    if (token.kind === 'symbol') {
      if (token.text === ')' || token.text === ']' || token.text === '}') depth++;
      else if (token.text === '(' || token.text === '[' || token.text === '{') {
        if (depth === 0) return '(';
        depth--;
      }
    } else if (depth === 0 && token.kind === 'word' && CLAUSES.has(token.value)) return token.value;
  }
  return '';
}
