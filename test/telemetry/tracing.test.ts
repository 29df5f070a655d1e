// Spans as a collector receives them: a local server takes the OTLP posts of the real exporter.
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { UsageRow } from '#core/stores.ts';
import { openTracing, type Tracing } from '../../src/telemetry/tracing.ts';

interface WireSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly status: { readonly code?: number };
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
}

let collector: Server;
let bodies: string[];
let tracing: Tracing;

beforeEach(async () => {
  bodies = [];
  collector = createServer((incoming, outgoing) => {
    let body = '';
    incoming.setEncoding('utf8').on('data', (text) => {
      body += text;
    });
    incoming.on('end', () => {
      bodies.push(body);
      outgoing.setHeader('content-type', 'application/json').end('{}');
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const { port } = collector.address() as AddressInfo;
  const opened = await openTracing({ OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}/` }, '1.2.3');
  if (!opened) throw new Error('tracing is off');
  tracing = opened;
});
afterEach(async () => {
  await tracing.close();
  collector.closeAllConnections();
  await new Promise((resolve) => collector.close(resolve));
});

async function spans(): Promise<readonly WireSpan[]> {
  await tracing.close();
  return bodies.flatMap((body) =>
    JSON.parse(body).resourceSpans.flatMap((resource: { scopeSpans: { spans: WireSpan[] }[] }) =>
      resource.scopeSpans.flatMap((scope) => scope.spans),
    ),
  );
}
const attribute = (span: WireSpan | undefined, key: string) =>
  Object.values(span?.attributes.find((pair) => pair.key === key)?.value ?? {})[0];

const row = (options: Partial<UsageRow> = {}): UsageRow => ({
  ...{
    requestId: 'r',
    callId: 'call-1',
    clientRequestId: null,
    requestTimeMs: Date.UTC(2026, 0, 1),
    requester: 'alice',
  },
  ...{ origin: 'http', endpoint: 'chat', servedEntity: 'gpt', model: 'gpt-4o', engine: 'openai' },
  ...{ task: 'llm/v1/chat', statusCode: 200, errorCode: null, errorMessage: null, inputCount: 1 },
  ...{ cachedCount: 0, attempts: 1, inputTokens: 10, outputTokens: 20, cost: null, durationMs: 250 },
  ...{ isStreaming: false, usageContext: null },
  ...options,
});

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT = '00f067aa0ba902b7';

describe('tracing', () => {
  it('shows a request of a traced caller with the request to the model below it', async () => {
    tracing.begin({
      id: 'call-1',
      method: 'POST',
      path: '/v1/chat/completions',
      traceparent: `00-${TRACE}-${PARENT}-01`,
    });
    tracing.addUsage(row());
    tracing.end('call-1', { status: 200, route: '/v1/chat/completions', endpoint: 'chat' });
    const all = await spans();
    const server = all.find((span) => span.name === 'POST');
    const model = all.find((span) => span.name === 'chat chat');
    expect(server).toMatchObject({ traceId: TRACE, parentSpanId: PARENT, kind: 2 });
    expect(attribute(server, 'http.response.status_code')).toBe(200);
    expect(model).toMatchObject({ traceId: TRACE, parentSpanId: server?.spanId, kind: 3 });
    expect(attribute(model, 'gen_ai.usage.output_tokens')).toBe(20);
    expect(attribute(model, 'gen_ai.response.model')).toBe('gpt-4o');
    expect(BigInt(model?.endTimeUnixNano ?? 0) - BigInt(model?.startTimeUnixNano ?? 0)).toBe(250_000_000n);
  });

  it('begins a trace of its own for other callers, also for those whose header cannot be read', async () => {
    for (const [id, traceparent] of [
      ['a', undefined],
      ['b', `00-${'0'.repeat(32)}-${PARENT}-01`],
      ['c', 'rubbish'],
    ] as const) {
      tracing.begin({ id, method: 'GET', path: '/', traceparent });
      tracing.end(id, { status: 503, route: '/' });
    }
    const all = await spans();
    expect(all).toHaveLength(3);
    expect(new Set(all.map((span) => span.traceId)).size).toBe(3);
    expect(all.every((span) => !span.parentSpanId && span.status.code === 2)).toBe(true);
  });

  it('shows rows of statements too, failures with their code, and nothing for answers from the store', async () => {
    tracing.addUsage(row({ callId: 'of-sql', origin: 'sql', errorCode: 'TIMEOUT', statusCode: 504 }));
    tracing.addUsage(row({ callId: 'stored', attempts: 0, cachedCount: 1 }));
    const all = await spans();
    expect(all).toHaveLength(1);
    expect(attribute(all[0], 'error.type')).toBe('TIMEOUT');
    expect(attribute(all[0], 'duckserve.origin')).toBe('sql');
  });

  it('is off without a collector', async () => {
    expect(await openTracing({}, '1')).toBeUndefined();
  });
});
