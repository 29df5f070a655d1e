// Requests and answers of infer on the wire: JSON alone, or JSON with the bytes of tensors behind it.
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { CUSTOM_MODEL_BODY_BYTES, parseJsonObject, readBytes, toText } from '../body.ts';
import { parseWith, showValue } from '../errors.ts';
import { type HttpContext, readJsonBody } from '../request.ts';
import { sendBytes, sendJson } from '../send.ts';
import { decodeTensor, encodeTensor } from './binary.ts';
import { tensorInput } from './tensors.ts';

const JSON_LENGTH = 'inference-header-content-length';

const parameters = z.record(z.string(), z.json()).nullish();
export const inferBody = z.object({
  id: z.string().nullish(),
  parameters,
  inputs: z.array(tensorInput).min(1),
  outputs: z.array(z.object({ name: z.string(), parameters })).nullish(),
});
export type InferBody = z.output<typeof inferBody>;

/** With the bytes of its tensors as values. */
export async function readInferBody(c: HttpContext): Promise<InferBody> {
  const header = c.req.header(JSON_LENGTH);
  if (header === undefined) {
    return fillIn(parseWith(inferBody, await readJsonBody(c, CUSTOM_MODEL_BODY_BYTES)), Buffer.alloc(0));
  }
  const bytes = await readBytes(c, CUSTOM_MODEL_BODY_BYTES);
  const length = /^\d{1,9}$/.test(header.trim()) ? Number(header) : Number.NaN;
  if (!(length <= bytes.length)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `Header ${JSON_LENGTH} is ${showValue(header)}; it is the length of the JSON in a body of ${bytes.length} bytes.`,
    );
  }
  const body = parseWith(inferBody, parseJsonObject(toText(bytes.subarray(0, length))));
  return fillIn(body, bytes.subarray(length));
}

function fillIn(body: InferBody, bytes: Buffer): InferBody {
  let at = 0;
  const inputs = body.inputs.map((input) => {
    const size = input.parameters?.binary_data_size;
    if (size === undefined) return input;
    if (typeof size !== 'number' || !Number.isInteger(size) || size < 0 || at + size > bytes.length) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `Input ${showValue(input.name)}: binary_data_size is ${showValue(size)}, and ${bytes.length - at} bytes are left behind the JSON.`,
        { details: { field: 'inputs' } },
      );
    }
    const data = decodeTensor(input.name, input.datatype, bytes.subarray(at, at + size));
    at += size;
    return { ...input, data };
  });
  if (at === bytes.length) return { ...body, inputs };
  throw new ServingError(
    'INVALID_PARAMETER',
    `${bytes.length - at} bytes behind the JSON belong to no input: give each its binary_data_size.`,
    { details: { field: 'inputs' } },
  );
}

/** Parameters for the model: those of the protocol itself are left out. */
export function modelParameters(body: InferBody): JsonObject {
  const { binary_data_output: _asked, ...rest } = body.parameters ?? {};
  return rest;
}

/** The outputs that were asked for as bytes go behind the JSON. */
export function sendInferAnswer(
  c: HttpContext,
  body: InferBody,
  answer: { readonly outputs: readonly JsonObject[] } & JsonObject,
  headers: Readonly<Record<string, string>>,
): Response {
  const chunks: Buffer[] = [];
  const outputs = answer.outputs.map((tensor): JsonObject => {
    if (!wantsBytes(body, tensor.name)) return tensor;
    const bytes = encodeTensor(tensor);
    chunks.push(bytes);
    const { data: _data, ...rest } = tensor;
    return { ...rest, parameters: { binary_data_size: bytes.length } };
  });
  if (chunks.length === 0) return sendJson(c, answer, headers);
  const json = Buffer.from(JSON.stringify({ ...answer, outputs }));
  return sendBytes(c, Buffer.concat([json, ...chunks]), { ...headers, [JSON_LENGTH]: String(json.length) });
}

function wantsBytes(body: InferBody, name: Json | undefined): boolean {
  const asked = body.outputs?.find((output) => output.name === name)?.parameters?.binary_data;
  return (asked ?? body.parameters?.binary_data_output) === true;
}
