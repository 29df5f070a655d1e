// POST /v2/models/{name}/infer: tensors as rows of a custom model or as texts of an embedding endpoint, and the
// answers as tensors. Chat and completions have no tensors; the error says where they are asked.
import type { EmbeddingOutput, FeatureInput, PredictOutput } from '#core/call.ts';
import type { Endpoint, Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { HttpDeps } from '../deps.ts';
import { showValue } from '../errors.ts';
import { type Asked, answerHeaders, type HttpContext, outputsOf, toCall } from '../request.ts';
import { describeModel } from '../visible.ts';
import { formatTensor, readTensor, type TensorRows } from './tensors.ts';
import { type Served, versionOf } from './versions.ts';
import { type InferBody, modelParameters, readInferBody, sendInferAnswer } from './wire.ts';

const API_TYPE = 'kserve/v2/infer';
/** Name of the vectors of an embedding endpoint. */
export const EMBEDDING_OUTPUT = 'embedding';

export async function answerInfer(
  c: HttpContext,
  deps: HttpDeps,
  endpoint: Endpoint,
  servedEntity: string | undefined,
): Promise<Response> {
  const asked: Asked = { endpoint: endpoint.name, apiType: API_TYPE, servedEntity };
  const body = await readInferBody(c);
  const tensors = body.inputs.map(readTensor);
  const rowCount = requireEqualRows(tensors);
  if (endpoint.task === 'llm/v1/embeddings') return answerEmbeddings(c, deps, asked, endpoint, body, tensors);
  if (endpoint.task !== 'predict') throw wrongTask(endpoint);
  const { target, signature } = describeModel(c, deps, endpoint.name);
  const inputs = toRows(tensors, rowCount, signature);
  if (rowCount === 0) {
    return sendInferAnswer(c, body, envelope(endpoint, body, target, formatOutputs(body, [], signature)), {});
  }
  const extra = modelParameters(body);
  const parameters = Object.keys(extra).length > 0 ? { extra } : {};
  const call = toCall(c, asked, { task: 'predict', inputs, parameters }, {});
  const answer = await deps.serving.invoke(call);
  const predictions = (outputsOf(answer) as PredictOutput[]).map((output) => output.prediction);
  const outputs = formatOutputs(body, predictions, signature);
  return sendInferAnswer(c, body, envelope(endpoint, body, answer, outputs), answerHeaders([answer]));
}

function wrongTask({ name, task }: Endpoint): ServingError {
  const path = task === 'llm/v1/chat' ? '/v1/chat/completions' : '/v1/completions';
  return new ServingError(
    'WRONG_TASK',
    `Endpoint '${name}' serves ${task}, which has no tensors: ask it at ${path}. /v2 takes custom models and embedding endpoints.`,
  );
}

function requireEqualRows(tensors: readonly TensorRows[]): number {
  const rowCount = tensors[0]?.rows.length ?? 0;
  for (const { name, rows } of tensors) {
    if (rows.length === rowCount) continue;
    throw new ServingError(
      'INVALID_PARAMETER',
      `Input ${showValue(name)} has ${rows.length} rows and ${showValue(tensors[0]?.name)} has ${rowCount}: all inputs have the same first dimension.`,
      { details: { field: 'inputs' } },
    );
  }
  return rowCount;
}

/** A single tensor whose name is no column holds the features of each row by position. */
function toRows(
  tensors: readonly TensorRows[],
  rowCount: number,
  signature: Signature | undefined,
): FeatureInput[] {
  const [only] = tensors;
  const isByPosition =
    only !== undefined &&
    tensors.length === 1 &&
    (only.width > 1 || signature?.inputs.length === 1) &&
    !signature?.inputs.some(({ name }) => name === only.name);
  if (isByPosition) return only.rows.map((row) => ({ features: Array.isArray(row) ? row : [row] }));
  return Array.from({ length: rowCount }, (_, row) => ({
    features: Object.fromEntries(tensors.map(({ name, rows }) => [name, rows[row] ?? null])),
  }));
}

function formatOutputs(
  body: InferBody,
  predictions: readonly Json[],
  signature: Signature | undefined,
): readonly JsonObject[] {
  const known = signature?.outputs ?? [];
  const [first] = predictions;
  const isNamed = isJsonObject(first) && (known.length !== 1 || Object.hasOwn(first, known[0]?.name ?? ''));
  const names = isNamed ? Object.keys(first) : [known[0]?.name ?? 'predictions'];
  const offered = predictions.length === 0 && known.length > 0 ? known.map(({ name }) => name) : names;
  const wanted = body.outputs?.length ? body.outputs.map(({ name }) => name) : offered;
  return wanted.map((name) => {
    if (!offered.includes(name)) throw unknownOutput(name, offered);
    const rows = predictions.map((row) => (isNamed && isJsonObject(row) ? (row[name] ?? null) : row));
    return formatTensor({ name, type: known.find((column) => column.name === name)?.type }, rows);
  });
}

function unknownOutput(name: string, offered: readonly string[]): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `There is no output ${showValue(name)}. There are: ${offered.join(', ')}.`,
    { details: { field: 'outputs' } },
  );
}

async function answerEmbeddings(
  c: HttpContext,
  deps: HttpDeps,
  asked: Asked,
  endpoint: Endpoint,
  body: InferBody,
  tensors: readonly TensorRows[],
): Promise<Response> {
  const [texts] = tensors;
  if (tensors.length !== 1 || texts?.datatype !== 'BYTES' || texts.width !== 1) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `Endpoint '${endpoint.name}' embeds texts and takes one input of datatype BYTES and shape [N].`,
      { details: { field: 'inputs' } },
    );
  }
  const unknown = body.outputs?.find(({ name }) => name !== EMBEDDING_OUTPUT);
  if (unknown) throw unknownOutput(unknown.name, [EMBEDDING_OUTPUT]);
  const column = { name: EMBEDDING_OUTPUT, type: 'float' as const };
  if (texts.rows.length === 0) {
    const { target } = describeModel(c, deps, endpoint.name);
    return sendInferAnswer(c, body, envelope(endpoint, body, target, [formatTensor(column, [])]), {});
  }
  const inputs = texts.rows.map((text) => ({ text: String(text) }));
  const call = toCall(c, asked, { task: 'llm/v1/embeddings', inputs, parameters: {} }, {});
  const answer = await deps.serving.invoke(call);
  const vectors = (outputsOf(answer) as EmbeddingOutput[]).map(({ embedding }) => Array.from(embedding));
  const outputs = [formatTensor(column, vectors)];
  return sendInferAnswer(c, body, envelope(endpoint, body, answer, outputs), answerHeaders([answer]));
}

function envelope(
  endpoint: Endpoint,
  body: InferBody,
  served: Served | undefined,
  outputs: readonly JsonObject[],
) {
  const entity =
    endpoint.servedEntities.find(({ name }) => name === served?.servedEntity) ?? endpoint.servedEntities[0];
  return {
    model_name: endpoint.name,
    ...(entity === undefined ? {} : { model_version: versionOf(entity, served) }),
    ...(body.id === undefined || body.id === null ? {} : { id: body.id }),
    outputs,
  };
}
