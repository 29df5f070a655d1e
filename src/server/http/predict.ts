// Invocations of custom models: a table in one of MLflow's four JSON formats or as CSV, predictions back. Not here:
// how a format is read (features.ts, csv.ts) and whether rows fit the model (serving and the engine).
import { z } from 'zod';
import type { Answer, FeatureInput, PredictOutput } from '#core/call.ts';
import type { Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { CUSTOM_MODEL_BODY_BYTES, parseJsonObject, readBytes, readMediaType, toText } from './body.ts';
import { parseCsv } from './csv.ts';
import type { HttpDeps } from './deps.ts';
import { parseWith, showKeys } from './errors.ts';
import { FEATURE_FORMATS, parseFeatures } from './features.ts';
import { ignoredHeaders } from './parameters.ts';
import { type Asked, answerHeaders, type HttpContext, outputsOf, sharedFields, toCall } from './request.ts';
import { sendJson } from './send.ts';
import { describeModel } from './visible.ts';

const predictFields = z.object({ params: z.record(z.string(), z.json()).nullish(), ...sharedFields });

/** Keys of a language model's body. MLflow hands such a body to a model as it is, as one row. */
const LANGUAGE_KEYS = ['messages', 'prompt', 'input'];

interface Rows {
  readonly inputs: readonly FeatureInput[];
  readonly fields: z.output<typeof predictFields>;
  readonly ignored: readonly string[];
  /** One row whose answer stands alone, without `predictions` around it. */
  readonly isAlone?: boolean;
}

export async function answerPredict(c: HttpContext, deps: HttpDeps, asked: Asked): Promise<Response> {
  const type = readMediaType(c, { takesCsv: true, isStrict: true });
  const text = toText(await readBytes(c, CUSTOM_MODEL_BODY_BYTES));
  // Looked up only where a body cannot be read without it.
  const signature = () => describeModel(c, deps, asked.endpoint).signature;
  const { inputs, fields, ignored, isAlone } =
    type === 'csv'
      ? { inputs: parseCsv(text, signature()), fields: {}, ignored: [] }
      : readRows(asked.endpoint, parseJsonObject(text), signature);
  if (inputs.length === 0) return sendJson(c, { predictions: [] }, ignoredHeaders(ignored));
  const extra = { ...fields.params, ...fields.extra_params };
  const parameters = Object.keys(extra).length === 0 ? {} : { extra };
  const call = toCall(c, asked, { task: 'predict', inputs, parameters }, fields);
  const answer = await deps.serving.invoke(call);
  const predictions = outputsByRow(answer).map((output) => output.prediction);
  const headers = { ...answerHeaders([answer]), ...ignoredHeaders(ignored) };
  return sendJson(c, isAlone ? predictions[0] : { predictions }, headers);
}

/** Says of a table which of its rows the model could not take. */
function outputsByRow(answer: Answer): PredictOutput[] {
  const row = answer.items.findIndex((item) => !item.ok);
  const failed = answer.items[row];
  if (failed === undefined || failed.ok || answer.items.length === 1)
    return outputsOf(answer) as PredictOutput[];
  const { code, message, details, cause, retryAfterMs } = failed.error;
  if (code !== 'SCHEMA_MISMATCH') throw failed.error;
  const where = `Row ${row + 1} of ${answer.items.length}: `;
  throw new ServingError(code, where + message, { details: { ...details, row }, cause, retryAfterMs });
}

function readRows(endpoint: string, body: JsonObject, signature: () => Signature | undefined): Rows {
  const fields = parseWith(predictFields, body);
  const rest = Object.keys(body).filter((name) => !Object.hasOwn(predictFields.shape, name));
  const formats = FEATURE_FORMATS.filter((key) => body[key] !== undefined);
  const [format] = formats;
  if (format === undefined && takesLanguageBody(rest, signature())) {
    const features = Object.fromEntries(rest.map((name) => [name, body[name] ?? null]));
    return { inputs: [{ features }], fields, ignored: [], isAlone: true };
  }
  if (format === undefined || formats.length > 1) {
    throw new ServingError(
      'BAD_REQUEST',
      `Endpoint '${endpoint}' serves predict and takes exactly one of ${FEATURE_FORMATS.join(', ')}; the body has ${showKeys(body)}.`,
    );
  }
  const inputs = parseFeatures(format, body[format] ?? null);
  return { inputs, fields, ignored: rest.filter((name) => name !== format) };
}

/** Only where the model has such a column: else the caller has the wrong endpoint, and should be told so. */
function takesLanguageBody(keys: readonly string[], signature: Signature | undefined): boolean {
  return signature?.inputs.some(({ name }) => LANGUAGE_KEYS.includes(name) && keys.includes(name)) ?? false;
}
