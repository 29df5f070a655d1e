// What usage rows add up to: one cell for each endpoint, door, model and outcome, found by one look-up a row, and
// turned into text when somebody asks. `gen_ai_*` are OpenTelemetry's names for generative AI
// (open-telemetry/semantic-conventions-genai, status: development), `duckserve_*` are ours.
import type { Task } from '#core/call.ts';
import type { EngineKind } from '#core/endpoint.ts';
import type { UsageRow } from '#core/stores.ts';
import { family, Histogram, type Labels, sample } from './exposition.ts';

const OPERATIONS: Readonly<Record<Task, string>> = {
  'llm/v1/chat': 'chat',
  'llm/v1/completions': 'text_completion',
  'llm/v1/embeddings': 'embeddings',
  predict: 'predict',
};
/** The convention's names of providers; models of this machine are our own. */
const PROVIDER_NAMES: Readonly<Partial<Record<EngineKind, string>>> = {
  'amazon-bedrock': 'aws.bedrock',
  'google-cloud-vertex-ai': 'gcp.vertex_ai',
  'databricks-model-serving': 'databricks',
  onnx: 'duckserve',
  static: 'duckserve',
  llama: 'duckserve',
  echo: 'duckserve',
};
const SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];
const TOKEN_SECONDS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
const TOKENS = Array.from({ length: 14 }, (_, power) => 4 ** power);
/** Names that do not exist share one label, else anybody could fill the memory with made-up ones. */
const UNKNOWN_ENDPOINT = '(unknown)';
/** Far above what a configuration can make; what comes after shares the label of unknown endpoints. */
const MOST_CELLS = 20_000;

interface Cell {
  readonly endpoint: string;
  readonly origin: string;
  readonly status: string;
  readonly genAi: Labels;
  readonly errorType: string;
  requests: number;
  inputs: number;
  cached: number;
  attempts: number;
  inputTokens: number;
  outputTokens: number;
  cost: number;
  readonly duration: Histogram;
  readonly inputUsage: Histogram;
  readonly outputUsage: Histogram;
  readonly firstToken: Histogram;
  readonly perToken: Histogram;
}

export class UsageMetrics {
  readonly #cells = new Map<string, Cell>();

  add(row: UsageRow): void {
    const cell = this.#cellOf(row);
    cell.requests += 1;
    cell.inputs += row.inputCount;
    cell.cached += row.cachedCount;
    cell.attempts += row.attempts;
    cell.inputTokens += row.inputTokens;
    cell.outputTokens += row.outputTokens;
    if (row.cost !== null) cell.cost += row.cost;
    // Calls answered from the store would hide how long a model takes.
    if (row.attempts === 0) return;
    cell.duration.observe(row.durationMs / 1_000);
    if (row.inputTokens > 0) cell.inputUsage.observe(row.inputTokens);
    if (row.outputTokens > 0) cell.outputUsage.observe(row.outputTokens);
    if (row.timeToFirstByteMs === undefined) return;
    cell.firstToken.observe(row.timeToFirstByteMs / 1_000);
    if (row.outputTokens > 1) {
      cell.perToken.observe((row.durationMs - row.timeToFirstByteMs) / 1_000 / (row.outputTokens - 1));
    }
  }

  render(): string {
    const cells = [...this.#cells.values()];
    const ofEndpoint = (cell: Cell) => ({ endpoint: cell.endpoint });
    const counter = (
      name: string,
      help: string,
      labels: (cell: Cell) => Labels,
      value: (cell: Cell) => number,
    ) => family(name, 'counter', help, summed(name, cells, labels, value));
    const histogram = (name: string, help: string, lines: (cell: Cell) => string) =>
      family(name, 'histogram', help, cells.map(lines).join(''));
    const tokens = (cell: Cell, type: 'input' | 'output', usage: Histogram) =>
      usage.count === 0
        ? ''
        : usage.lines('gen_ai_client_token_usage', { ...where(cell), gen_ai_token_type: type });
    return [
      counter(
        'duckserve_requests_total',
        'Requests to engines and calls that needed none, by endpoint, door and status.',
        (cell) => ({ endpoint: cell.endpoint, origin: cell.origin, status: cell.status }),
        (cell) => cell.requests,
      ),
      counter(
        'duckserve_inputs_total',
        'Inputs of calls (rows, texts, prompts).',
        ofEndpoint,
        (cell) => cell.inputs,
      ),
      counter(
        'duckserve_cached_inputs_total',
        'Inputs answered from the answer store.',
        ofEndpoint,
        (cell) => cell.cached,
      ),
      counter(
        'duckserve_attempts_total',
        'Requests to engines, retries included.',
        ofEndpoint,
        (cell) => cell.attempts,
      ),
      family(
        'duckserve_tokens_total',
        'counter',
        'Tokens by endpoint and direction.',
        summed(
          'duckserve_tokens_total',
          cells,
          (cell) => ({ ...ofEndpoint(cell), type: 'input' }),
          (cell) => cell.inputTokens,
        ) +
          summed(
            'duckserve_tokens_total',
            cells,
            (cell) => ({ ...ofEndpoint(cell), type: 'output' }),
            (cell) => cell.outputTokens,
          ),
      ),
      counter(
        'duckserve_cost_usd_total',
        'US dollars, where the price is known.',
        ofEndpoint,
        (cell) => cell.cost,
      ),
      histogram('gen_ai_client_token_usage', 'Tokens of a request to a model.', (cell) =>
        [tokens(cell, 'input', cell.inputUsage), tokens(cell, 'output', cell.outputUsage)].join(''),
      ),
      histogram(
        'gen_ai_client_operation_duration_seconds',
        'Time of a request to a model, retries included.',
        (cell) => shown('gen_ai_client_operation_duration_seconds', cell, cell.duration),
      ),
      histogram(
        'gen_ai_server_time_to_first_token_seconds',
        'Time until the first event of a stream.',
        (cell) => shown('gen_ai_server_time_to_first_token_seconds', cell, cell.firstToken),
      ),
      histogram(
        'gen_ai_server_time_per_output_token_seconds',
        'Time of each further token of a stream.',
        (cell) => shown('gen_ai_server_time_per_output_token_seconds', cell, cell.perToken),
      ),
    ].join('');
  }

  #cellOf(row: UsageRow): Cell {
    const isUnknown = row.errorCode === 'ENDPOINT_NOT_FOUND';
    const endpoint = isUnknown ? UNKNOWN_ENDPOINT : row.endpoint;
    const key = `${endpoint}\n${row.origin}\n${row.statusCode}\n${row.errorCode ?? ''}\n${row.model ?? ''}\n${row.task}`;
    const known = this.#cells.get(key);
    if (known) return known;
    const isFull = this.#cells.size >= MOST_CELLS;
    const cell = newCell(row, isFull ? UNKNOWN_ENDPOINT : endpoint);
    this.#cells.set(isFull ? UNKNOWN_ENDPOINT : key, cell);
    return cell;
  }
}

function newCell(row: UsageRow, endpoint: string): Cell {
  return {
    endpoint,
    origin: row.origin,
    status: String(row.statusCode),
    genAi: {
      gen_ai_operation_name: OPERATIONS[row.task],
      gen_ai_provider_name: row.engine === null ? '' : (PROVIDER_NAMES[row.engine] ?? row.engine),
      gen_ai_request_model: endpoint,
      gen_ai_response_model: row.model ?? '',
    },
    errorType: row.errorCode ?? '',
    ...{ requests: 0, inputs: 0, cached: 0, attempts: 0, inputTokens: 0, outputTokens: 0, cost: 0 },
    duration: new Histogram(SECONDS),
    inputUsage: new Histogram(TOKENS),
    outputUsage: new Histogram(TOKENS),
    firstToken: new Histogram(FIRST_TOKEN_SECONDS),
    perToken: new Histogram(TOKEN_SECONDS),
  };
}

/** Cells differ in more than the OpenTelemetry attributes; the door tells them apart. */
function where(cell: Cell): Labels {
  return { ...cell.genAi, error_type: cell.errorType, origin: cell.origin };
}

function shown(name: string, cell: Cell, histogram: Histogram): string {
  return histogram.count === 0 ? '' : histogram.lines(name, where(cell));
}

/** One line for each set of labels. */
function summed(
  name: string,
  cells: readonly Cell[],
  labelsOf: (cell: Cell) => Labels,
  of: (cell: Cell) => number,
): string {
  const sums = new Map<string, { labels: Labels; value: number }>();
  for (const cell of cells) {
    const labels = labelsOf(cell);
    const key = Object.values(labels).join('\n');
    const sum = sums.get(key);
    if (sum) sum.value += of(cell);
    else sums.set(key, { labels, value: of(cell) });
  }
  return [...sums.values()].map(({ labels, value }) => sample(name, labels, value)).join('');
}
