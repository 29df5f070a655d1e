// What the attacks and faults share: the real server inside this process, with everything that it logs kept, and
// requests to it of which nothing is assumed.
import type { Log } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import type { App, AppOptions } from '../../src/app.ts';
import { serve } from '../../src/serve.ts';
import { rowsOf, type Workplace } from '../app/support.ts';

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into JSON of many shapes
  readonly body: any;
}

export interface FaultServer {
  readonly app: App;
  readonly url: string;
  readonly port: number;
  /** Every line of the log, as JSON. */
  readonly logged: string[];
  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answered>;
  /** Rows of the ledger, oldest first, read by SQL. */
  usage(where?: string): Promise<readonly Pick<UsageRow, 'statusCode' | 'errorCode' | 'attempts'>[]>;
}

export async function openFaultServer(workplace: Workplace, options: AppOptions = {}): Promise<FaultServer> {
  const logged: string[] = [];
  const app = await workplace.app({ dataDir: ':memory:', log: logTo(logged), ...options });
  const addresses = { allow: [], trustedProxies: [] };
  const edge = { host: '127.0.0.1', port: 0, drainMs: 0, addresses };
  const context = { log: logTo(logged), version: '0.0.0', env: {} };
  const server = await serve(app, edge, context);
  workplace.onClear(() => server.close());
  return {
    app,
    url: server.url,
    port: Number(new URL(server.url).port),
    logged,
    ask: (method, path, body, headers) => ask(`${server.url}${path}`, method, body, headers),
    async usage(where = 'true') {
      const session = await app.openSession();
      const sql = `SELECT status_code, error_code, attempts FROM duckserve.usage WHERE ${where} ORDER BY request_time`;
      const rows = await rowsOf(session, sql);
      await session.close();
      return rows.map(([status, code, attempts]) => ({
        statusCode: Number(status),
        errorCode: code === null ? null : String(code),
        attempts: Number(attempts),
      }));
    },
  };
}

/** A body that is a text is sent as it is, anything else as JSON. */
export async function ask(
  url: string,
  method: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answered> {
  const response = await fetch(url, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, body: parse(text) };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function logTo(lines: string[]): Log {
  const write = (fields: object, message: string) => void lines.push(JSON.stringify({ message, ...fields }));
  return { debug: write, info: write, warn: write, error: write };
}

export const chatBody = (model: string, content = 'one two three', more: object = {}) => ({
  model,
  messages: [{ role: 'user', content }],
  ...more,
});
