// What a file that somebody registers is: which engine runs it, for which task, with which signature.
// Only looks; copying and versioning are the registry's.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { ModelInspection } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

/** `path` is an .onnx or .gguf file, or a folder with an .onnx and its tokenizer.json. Throws INVALID_PARAMETER. */
export async function inspectModel(path: string): Promise<ModelInspection> {
  if (!existsSync(path)) {
    throw new ServingError('INVALID_PARAMETER', `There is no file or folder ${path}.`);
  }
  if (statSync(path).isDirectory()) return inspectFolder(path);
  if (extname(path).toLowerCase() === '.gguf') return { engine: 'llama', task: 'llm/v1/chat', options: {} };
  if (extname(path).toLowerCase() === '.onnx') return inspectOnnx(path);
  throw new ServingError(
    'INVALID_PARAMETER',
    `${path} is not a model duckserve can run: give an .onnx file, a .gguf file, or a folder with an .onnx and its tokenizer.json.`,
  );
}

async function inspectFolder(path: string): Promise<ModelInspection> {
  const names = readdirSync(path);
  const gguf = names.find((name) => name.toLowerCase().endsWith('.gguf'));
  if (gguf) return { engine: 'llama', task: 'llm/v1/chat', options: {} };
  if (names.includes('tokenizer.json')) return { engine: 'onnx', task: 'llm/v1/embeddings', options: {} };
  const onnx = names.find((name) => name.toLowerCase().endsWith('.onnx'));
  if (onnx) return inspectOnnx(join(path, onnx));
  throw new ServingError('INVALID_PARAMETER', `The folder ${path} holds neither an .onnx nor a .gguf file.`);
}

/** A tokenizer beside it makes an ONNX file a text model; else it is a tabular one. */
async function inspectOnnx(path: string): Promise<ModelInspection> {
  if (existsSync(join(path, '..', 'tokenizer.json')))
    return { engine: 'onnx', task: 'llm/v1/embeddings', options: {} };
  const { inspectTabularModel } = await import('./onnx/tabular.ts');
  const { signature, options } = await inspectTabularModel(path);
  return { engine: 'onnx', task: 'predict', signature, options };
}
