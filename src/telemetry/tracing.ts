// OpenTelemetry spans, when a collector is configured: one server span for each HTTP request, and below it one client
// span for each request to a model, made from its usage row. Names and attributes are those of the semantic conventions
// for HTTP and generative AI; prompts and answers are in none. The packages are loaded only when they are needed.
import type { Attributes, Span, Tracer } from '@opentelemetry/api';
import type { UsageRow } from '#core/stores.ts';

export interface RequestSpan {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  /** W3C trace context of the caller. */
  readonly traceparent: string | undefined;
}

export interface Tracing {
  begin(request: RequestSpan): void;
  end(
    id: string,
    outcome: { readonly status: number; readonly route: string; readonly endpoint?: string },
  ): void;
  addUsage(row: UsageRow): void;
  /** Sends what is left, for five seconds at most. */
  close(): Promise<void>;
}

/** Requests that have begun and not ended; more than this at once are not traced. */
const MOST_OPEN = 10_000;
const CLOSE_MS = 5_000;
const OPERATIONS = {
  'llm/v1/chat': 'chat',
  'llm/v1/completions': 'text_completion',
  'llm/v1/embeddings': 'embeddings',
  predict: 'predict',
} as const;

/** Undefined unless OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set. */
export async function openTracing(
  env: Readonly<Record<string, string | undefined>>,
  version: string,
): Promise<Tracing | undefined> {
  const url = tracesUrl(env);
  if (url === undefined || env.OTEL_SDK_DISABLED === 'true') return undefined;
  const [
    api,
    { BasicTracerProvider, BatchSpanProcessor },
    { OTLPTraceExporter },
    { resourceFromAttributes },
  ] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace-base'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ]);
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': env.OTEL_SERVICE_NAME ?? 'duckserve',
      'service.version': version,
    }),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url }))],
  });
  const tracer = provider.getTracer('duckserve', version);
  const spans = new Spans(tracer, api);
  return {
    begin: (request) => spans.begin(request),
    end: (id, outcome) => spans.end(id, outcome),
    addUsage: (row) => spans.addUsage(row),
    close: async () => {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_MS);
      });
      await Promise.race([provider.shutdown().catch(() => undefined), late]);
      clearTimeout(timer);
    },
  };
}

function tracesUrl(env: Readonly<Record<string, string | undefined>>): string | undefined {
  if (env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) return env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  const base = env.OTEL_EXPORTER_OTLP_ENDPOINT;
  return base ? `${base.replace(/\/+$/, '')}/v1/traces` : undefined;
}

type Api = typeof import('@opentelemetry/api');

class Spans {
  readonly #tracer: Tracer;
  readonly #api: Api;
  readonly #open = new Map<string, Span>();

  constructor(tracer: Tracer, api: Api) {
    this.#tracer = tracer;
    this.#api = api;
  }

  begin({ id, method, path, traceparent }: RequestSpan): void {
    if (this.#open.size >= MOST_OPEN) return;
    const { SpanKind, ROOT_CONTEXT, trace } = this.#api;
    const parent = parseTraceparent(traceparent);
    const context = parent ? trace.setSpanContext(ROOT_CONTEXT, { ...parent, isRemote: true }) : ROOT_CONTEXT;
    const attributes = { 'http.request.method': method, 'url.path': path };
    this.#open.set(id, this.#tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, context));
  }

  end(id: string, { status, route, endpoint }: { status: number; route: string; endpoint?: string }): void {
    const span = this.#open.get(id);
    if (span === undefined) return;
    this.#open.delete(id);
    span.setAttributes({ 'http.response.status_code': status, 'http.route': route });
    if (endpoint !== undefined) span.setAttribute('gen_ai.request.model', endpoint);
    if (status >= 500) span.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    span.end();
  }

  addUsage(row: UsageRow): void {
    // Nothing was sent: there is no request to a model to show.
    if (row.attempts === 0) return;
    const { SpanKind, ROOT_CONTEXT, trace, SpanStatusCode } = this.#api;
    const parent = this.#open.get(row.callId);
    const context = parent ? trace.setSpan(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
    const operation = OPERATIONS[row.task];
    const options = {
      kind: SpanKind.CLIENT,
      startTime: row.requestTimeMs,
      attributes: attributesOf(row, operation),
    };
    const span = this.#tracer.startSpan(`${operation} ${row.endpoint}`, options, context);
    if (row.errorCode !== null) span.setStatus({ code: SpanStatusCode.ERROR, message: row.errorCode });
    span.end(row.requestTimeMs + row.durationMs);
  }
}

function attributesOf(row: UsageRow, operation: string): Attributes {
  return {
    'gen_ai.operation.name': operation,
    'gen_ai.provider.name': row.engine ?? 'unknown',
    'gen_ai.request.model': row.endpoint,
    ...(row.model === null ? {} : { 'gen_ai.response.model': row.model }),
    'gen_ai.usage.input_tokens': row.inputTokens,
    'gen_ai.usage.output_tokens': row.outputTokens,
    'duckserve.attempts': row.attempts,
    'duckserve.origin': row.origin,
    'duckserve.call_id': row.callId,
    ...(row.errorCode === null ? {} : { 'error.type': row.errorCode }),
  };
}

/** https://www.w3.org/TR/trace-context/#traceparent-header; what does not fit is as if it had not been sent. */
function parseTraceparent(header: string | undefined) {
  const match = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(header?.trim() ?? '');
  const [, traceId, spanId, flags] = match ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1 };
}
