// Asks the running server of a data directory over its control socket. For the command line, which must not open
// what the server has open.
import { request as httpRequest } from 'node:http';
import { ERRORS, type ErrorCode, ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { findSocket } from './control-place.ts';

export interface ControlRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: JsonObject;
}

/**
 * The JSON of the answer; undefined where no server runs on the data directory. Throws what the server answers as
 * an error, and STORAGE_ERROR where the socket is another user's.
 */
export async function askControlSocket(dataDir: string, request: ControlRequest): Promise<Json | undefined> {
  const socketPath = findSocket(dataDir);
  if (socketPath === undefined) return undefined;
  const answer = await send(socketPath, request).catch((error: NodeJS.ErrnoException) => {
    // Left behind by a server that was killed.
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') return undefined;
    throw new ServingError(
      'STORAGE_ERROR',
      `The server of ${dataDir} cannot be asked over ${socketPath}: ${error.message}.`,
      { cause: error },
    );
  });
  if (answer === undefined) return undefined;
  const json = parse(answer.text);
  if (answer.status < 400) return json;
  throw toError(json, answer.status);
}

function send(
  socketPath: string,
  { method, path, body }: ControlRequest,
): Promise<{ readonly status: number; readonly text: string }> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    host: 'localhost',
    ...(text === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
  };
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 500, text: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    request.on('error', reject);
    request.end(text);
  });
}

function parse(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return null;
  }
}

/** The error as the server had it: its own code stands in `details`. */
function toError(json: Json, status: number): ServingError {
  const body = isJsonObject(json) ? json : {};
  const details: readonly Json[] = Array.isArray(body.details) ? body.details : [];
  const reasons = details.map((detail) => (isJsonObject(detail) ? detail.reason : undefined));
  const code = reasons.find((reason): reason is ErrorCode => typeof reason === 'string' && reason in ERRORS);
  return new ServingError(code ?? 'INTERNAL', String(body.message ?? `The server answered ${status}.`));
}
