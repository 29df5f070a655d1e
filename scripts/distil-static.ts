// Makes assets/static-256: token vectors of all-MiniLM-L6-v2 reduced to 256 dimensions by the Model2Vec recipe.
// Run by hand (`node --import tsx scripts/distil-static.ts`), never at install or run time. The same machine and
// ONNX runtime give the same bytes; another processor may round differently, which is why the result is carried.
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { MINILM_ID, MINILM_SHA256 } from '../src/core/embedded-models.ts';
import { formatTable, quantiseRows } from '../src/engines/static/table.ts';
import { fetchWeights } from '../src/engines/weights/weights.ts';

const DIMENSIONS = 256;
const ZIPF_SMOOTHING = 1e-4;
const CLS = 101;
const SEP = 102;
const target = fileURLToPath(new URL('../assets/static-256/', import.meta.url));
const say = (line: string) => process.stderr.write(`${line}\n`);

const cacheDir = process.env.DUCKSERVE_MODEL_CACHE ?? join(tmpdir(), 'duckserve-distil');
const source = await fetchWeights(MINILM_ID, cacheDir, { notify: say });
const vocabulary = readVocabulary(JSON.parse(await readFile(join(source, 'tokenizer.json'), 'utf8')));
say(`1/3 vectors of ${vocabulary.length} tokens`);
const vectors = await tokenVectors(join(source, 'model_quantized.onnx'), vocabulary.length);
say('2/3 principal components');
const { reduced, kept } = reduce(vectors, DIMENSIONS);
say(`    ${(kept * 100).toFixed(1)} % of the variance kept`);
say('3/3 Zipf weights and int8');
applyZipfWeights(reduced, vocabulary);
const table = formatTable(quantiseRows(reduced, DIMENSIONS));
const sha256 = createHash('sha256').update(table).digest('hex');
const vocabularyText = `${vocabulary.join('\n')}\n`;
const manifest = {
  id: 'embedded/static-256',
  file: 'table.bin',
  sha256,
  bytes: table.length,
  dimensions: DIMENSIONS,
  rows: vocabulary.length,
  vocabulary: { file: 'vocab.txt', sha256: createHash('sha256').update(vocabularyText).digest('hex') },
  licence: 'Apache-2.0',
  distilledFrom: { id: MINILM_ID, sha256: MINILM_SHA256 },
  variancePercent: Number((kept * 100).toFixed(1)),
};
await mkdir(target, { recursive: true });
await writeFile(join(target, 'table.bin'), table);
await writeFile(join(target, 'vocab.txt'), vocabularyText);
await writeFile(join(target, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
say(`Wrote ${target}: ${table.length} bytes, SHA-256 ${sha256}`);

function readVocabulary(tokenizer: { model: { vocab: Record<string, number> } }): string[] {
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(tokenizer.model.vocab)) tokens[id] = token;
  return tokens;
}

/** Mean of the last hidden states of [CLS] token [SEP]. One token a run: int8 activations are scaled per batch. */
async function tokenVectors(path: string, count: number): Promise<Float64Array[]> {
  const session = await InferenceSession.create(path, { intraOpNumThreads: 1, executionMode: 'sequential' });
  const ones = BigInt64Array.of(1n, 1n, 1n);
  const mask = new Tensor('int64', ones, [1, 3]);
  const types = new Tensor('int64', new BigInt64Array(3), [1, 3]);
  const vectors: Float64Array[] = [];
  for (let id = 0; id < count; id++) {
    const ids = new Tensor('int64', BigInt64Array.of(BigInt(CLS), BigInt(id), BigInt(SEP)), [1, 3]);
    const output = await session.run({ input_ids: ids, attention_mask: mask, token_type_ids: types });
    const states = output.last_hidden_state?.data as Float32Array;
    const size = states.length / 3;
    const vector = new Float64Array(size);
    for (let d = 0; d < size; d++)
      vector[d] = ((states[d] ?? 0) + (states[size + d] ?? 0) + (states[2 * size + d] ?? 0)) / 3;
    vectors.push(vector);
  }
  await session.release();
  return vectors;
}

/** Projects on the leading principal components; the sign of each is fixed by its largest member. */
function reduce(rows: readonly Float64Array[], dimensions: number) {
  const size = rows[0]?.length ?? 0;
  const mean = new Float64Array(size);
  for (const row of rows)
    for (let d = 0; d < size; d++) mean[d] = (mean[d] ?? 0) + (row[d] ?? 0) / rows.length;
  const covariance = Array.from({ length: size }, () => new Float64Array(size));
  const centred = rows.map((row) => row.map((value, d) => value - (mean[d] ?? 0)));
  for (const row of centred) {
    for (let i = 0; i < size; i++) {
      const line = covariance[i] as Float64Array;
      const factor = row[i] as number;
      for (let j = i; j < size; j++) line[j] = (line[j] as number) + factor * (row[j] as number);
    }
  }
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < i; j++) (covariance[i] as Float64Array)[j] = covariance[j]?.[i] ?? 0;
  }
  const { values, vectors: axes } = symmetricEigen(covariance);
  const order = [...values.keys()].sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0));
  const leading = order.slice(0, dimensions).map((index) => {
    const axis = Float64Array.from(axes, (line) => line[index] ?? 0);
    const largest = axis.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    return largest < 0 ? axis.map((value) => -value) : axis;
  });
  const total = values.reduce((sum, value) => sum + value, 0);
  const kept = order.slice(0, dimensions).reduce((sum, index) => sum + (values[index] ?? 0), 0) / total;
  const reduced = centred.map((row) =>
    Float64Array.from(leading, (axis) => {
      let sum = 0;
      for (let d = 0; d < size; d++) sum += (axis[d] as number) * (row[d] as number);
      return sum;
    }),
  );
  return { reduced, kept };
}

/** Eigenvalues and eigenvectors (as columns) of a symmetric matrix, by cyclic Jacobi rotations. */
function symmetricEigen(matrix: readonly Float64Array[]) {
  const size = matrix.length;
  const a = matrix.map((line) => Float64Array.from(line));
  // Eigenvectors as rows while rotating: two contiguous rows instead of two columns.
  const v = matrix.map((_, i) => Float64Array.from({ length: size }, (_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0;
    for (let p = 0; p < size; p++) for (let q = p + 1; q < size; q++) off += (a[p]?.[q] ?? 0) ** 2;
    if (off < 1e-18) break;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) rotate(a, v, p, q);
    }
  }
  return {
    values: a.map((line, i) => line[i] ?? 0),
    vectors: a.map((_, row) => Float64Array.from(v, (axis) => axis[row] ?? 0)),
  };
}

function rotate(a: readonly Float64Array[], v: readonly Float64Array[], p: number, q: number): void {
  const rowP = a[p] as Float64Array;
  const rowQ = a[q] as Float64Array;
  const apq = rowP[q] as number;
  if (Math.abs(apq) < 1e-300) return;
  const theta = ((rowQ[q] as number) - (rowP[p] as number)) / (2 * apq);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < a.length; k++) {
    const line = a[k] as Float64Array;
    const x = line[p] as number;
    const y = line[q] as number;
    line[p] = c * x - s * y;
    line[q] = s * x + c * y;
  }
  for (const [first, second] of [
    [rowP, rowQ],
    [v[p], v[q]],
  ] as [Float64Array, Float64Array][]) {
    for (let k = 0; k < first.length; k++) {
      const x = first[k] as number;
      const y = second[k] as number;
      first[k] = c * x - s * y;
      second[k] = s * x + c * y;
    }
  }
}

/**
 * Frequent words count less: 1e-4 / (1e-4 + p), with p by Zipf's law from the rank, which is the order of BERT's ids.
 * Special and unused tokens have no rank: with them the most frequent words would count as rare.
 */
function applyZipfWeights(rows: readonly Float64Array[], tokens: readonly string[]): void {
  const isOrdinary = tokens.map((token) => !/^\[(?:unused\d+|[A-Z]+)\]$/.test(token));
  const count = isOrdinary.filter(Boolean).length;
  let total = 0;
  for (let rank = 0; rank < count; rank++) total += 1 / (rank + 2);
  let rank = 0;
  for (const [id, row] of rows.entries()) {
    const probability = 1 / (rank + 2) / total;
    const weight = ZIPF_SMOOTHING / (ZIPF_SMOOTHING + probability);
    for (let d = 0; d < row.length; d++) row[d] = (row[d] ?? 0) * weight;
    if (isOrdinary[id]) rank++;
  }
}
