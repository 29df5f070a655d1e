// Is an answer what was asked for? Asked for JSON, it must parse and fit the schema; a fence around it is taken
// off and small damage repaired once. What fails here is an error: it is never stored and never shown as text.
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { ChatOutput, CompletionOutput, Output, Parameters, ResponseFormat } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { canonicalJson, isJsonObject } from '#core/json.ts';

export type CheckedOutput =
  | { readonly ok: true; readonly output: Output }
  /** `isFinal`: asking the same again cannot help. */
  | { readonly ok: false; readonly error: ServingError; readonly isFinal: boolean };

export type OutputCheck = (output: Output) => CheckedOutput;

type JsonFormat = Exclude<ResponseFormat, { readonly type: 'text' }>;
type TextOutput = ChatOutput | CompletionOutput;
/** The problem in words, or nothing. */
type JsonTest = (value: unknown) => string | undefined;
type Repair = (text: string) => string;

/** Compiling a schema costs milliseconds, and each pass of a statement asks with the same one. */
const compiled = new LRUCache<string, JsonTest>({ max: 256 });

/** Throws UNSUPPORTED_RETURN_TYPE when the schema is not one. The parsers are loaded when first needed. */
export async function loadOutputCheck({ responseFormat }: Parameters): Promise<OutputCheck> {
  if (!responseFormat || responseFormat.type === 'text') return checkPlain;
  const [{ jsonrepair }, test] = await Promise.all([import('jsonrepair'), loadTest(responseFormat)]);
  return (output) => checkJson(output, responseFormat, test, jsonrepair);
}

function checkPlain(output: Output): CheckedOutput {
  if (!('embedding' in output) || isVector(output.embedding)) return { ok: true, output };
  return failed(
    'The model returned an embedding that is empty or holds a value that is not a number.',
    false,
  );
}

function isVector(vector: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < vector.length; i++) sum += vector[i] ?? 0;
  return vector.length > 0 && Number.isFinite(sum);
}

async function loadTest(format: JsonFormat): Promise<JsonTest> {
  if (format.type === 'json_object') {
    return (value) => (isJsonObject(value) ? undefined : 'it is not an object');
  }
  const text = canonicalJson(format.schema);
  const key = createHash('sha256').update(text).digest('base64url');
  const known = compiled.get(key);
  if (known) return known;
  const { Ajv2020 } = await import('ajv/dist/2020.js');
  // `$schema` only names a dialect; most schemas mean the same in all of them, and an unknown name would throw.
  const { $schema: _dialect, ...schema } = format.schema;
  try {
    const ajv = new Ajv2020({ strict: false, validateFormats: false, logger: false });
    const validate = ajv.compile(schema);
    const test: JsonTest = (value) =>
      validate(value) ? undefined : ajv.errorsText(validate.errors, { dataVar: 'answer' });
    compiled.set(key, test);
    return test;
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new ServingError(
      'UNSUPPORTED_RETURN_TYPE',
      `The schema '${format.name}' of the response format is not a JSON schema: ${reason}.`,
      { cause: thrown },
    );
  }
}

function checkJson(output: Output, format: JsonFormat, test: JsonTest, repair: Repair): CheckedOutput {
  if (!('finishReason' in output)) return { ok: true, output };
  if ('toolCalls' in output && output.toolCalls?.length) return { ok: true, output };
  const text = textOf(output);
  if (output.finishReason === 'length') {
    return failed(
      `The JSON answer was cut off at the token limit after ${text.length} characters. Raise max_tokens.`,
      true,
    );
  }
  let problem = 'it is not JSON';
  for (const candidate of candidates(text, repair)) {
    const parsed = parse(candidate);
    if (!parsed) continue;
    const misfit = test(parsed.value);
    if (misfit === undefined) return { ok: true, output: withText(output, candidate) };
    problem = misfit;
  }
  const wanted = format.type === 'json_schema' ? `the schema '${format.name}'` : 'a JSON object';
  return failed(`The answer of the model is not ${wanted}: ${problem}. It begins: ${excerpt(text)}`, false);
}

/** The text itself, what is inside a fence, and either one repaired. */
function* candidates(text: string, repair: Repair): Generator<string> {
  const inner = /```(?:json)?\s*\n?([\s\S]*?)```/.exec(text)?.[1]?.trim();
  yield text;
  if (inner !== undefined) yield inner;
  try {
    yield repair(inner ?? text).trim();
  } catch {
    // Beyond repair: the candidates before it have said what was wrong.
  }
}

function parse(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

function textOf(output: TextOutput): string {
  return ('text' in output ? output.text : output.content) ?? '';
}

function withText(output: TextOutput, text: string): Output {
  if (text === textOf(output)) return output;
  return 'text' in output ? { ...output, text } : { ...output, content: text };
}

function excerpt(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}

function failed(message: string, isFinal: boolean): CheckedOutput {
  return { ok: false, error: new ServingError('INVALID_RESPONSE', message), isFinal };
}
