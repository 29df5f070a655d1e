// Chat completions over HTTP with the echo engine, so that nothing is measured but the door and the pipeline;
// against a bare Node server that sends the body back.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import { SILENT_LOG } from '#core/log.ts';
import { startHttpServer } from '#server/http/server.ts';
import { type OpenPart, runPart, startPart } from '../parts.ts';
import { type Figure, promise } from '../report.ts';
import { openPlace, type Place, placeIn, quantile, type Scenario, scaled } from '../scenario.ts';

const CONNECTIONS = [1, 16, 64];

interface LoadArgs {
  readonly url: string;
  readonly connections: number;
  readonly requests: number;
  /** `distinct`: every prompt is new. `equal`: one prompt, answered from the answer store after the first. */
  readonly prompts: 'distinct' | 'equal';
  readonly round: string;
}
interface LoadOutcome {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failures: number;
}

export async function serveDuckserve(place: Place): Promise<OpenPart<string>> {
  const app = await openPlace(place);
  const { serving, registry, openSession, createBudget } = app;
  const server = await startHttpServer(
    { serving, registry, openSession, createBudget, log: SILENT_LOG, version: 'bench' },
    { port: 0 },
  );
  return {
    value: server.url,
    close: async () => {
      await server.close();
      await app.close();
    },
  };
}

export async function serveBare(_place: Place): Promise<OpenPart<string>> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-length': body.length })
        .end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    value: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

export async function load({ url, connections, requests, prompts, round }: LoadArgs): Promise<LoadOutcome> {
  const pool = new Pool(url, { connections, pipelining: 1 });
  const headers = { 'content-type': 'application/json' };
  let failures = 0;
  const send = async (content: string): Promise<void> => {
    const body = JSON.stringify({ model: 'echo-chat', messages: [{ role: 'user', content }] });
    const response = await pool.request({ path: '/v1/chat/completions', method: 'POST', headers, body });
    const text = await response.body.text();
    if (response.statusCode !== 200 || !text.includes(content)) failures++;
  };
  const measure = async (
    count: number,
    name: string,
  ): Promise<{ readonly times: number[]; readonly seconds: number }> => {
    const times: number[] = [];
    let next = 0;
    const startedAt = performance.now();
    const worker = async () => {
      while (next < count) {
        const number = next++;
        const sentAt = performance.now();
        await send(prompts === 'equal' ? `hello, ${round}` : `hello, ${name} ${number}`);
        times.push(performance.now() - sentAt);
      }
    };
    await Promise.all(Array.from({ length: connections }, worker));
    return { times, seconds: (performance.now() - startedAt) / 1_000 };
  };
  await measure(Math.min(2_000, requests), `warm-up ${round}`);
  const { times, seconds } = await measure(requests, round);
  await pool.close();
  return {
    perSecond: requests / seconds,
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    failures,
  };
}

export const scenario: Scenario = {
  about: 'POST /v1/chat/completions on the echo endpoint over keep-alive connections',
  async run(context) {
    const figures: Figure[] = [];
    let failures = 0;
    let sent = 0;
    const place = placeIn(context.directory);
    const bare = await startPart(import.meta.url, serveBare, place);
    const product = await startPart(import.meta.url, serveDuckserve, place);
    for (const connections of CONNECTIONS) {
      const requests = scaled(context, connections === 1 ? 3_000 : 10_000, 200);
      const round = (name: string) => `${name} ${connections}`;
      const { value: bareRun } = await runPart(import.meta.url, load, {
        url: bare.value,
        connections,
        requests,
        prompts: 'distinct',
        round: round('bare'),
      });
      for (const prompts of ['distinct', 'equal'] as const) {
        const { value } = await runPart(import.meta.url, load, {
          url: product.value,
          connections,
          requests,
          prompts,
          round: round(prompts),
        });
        failures += value.failures;
        sent += requests;
        const name = `${connections} connections, ${prompts} prompts`;
        const against = (value: number) => ({ name: 'bare node:http', value });
        figures.push({
          name: `requests/s, ${name}`,
          value: value.perSecond,
          unit: '/s',
          against: against(bareRun.perSecond),
        });
        figures.push({
          name: `p50, ${name}`,
          value: value.p50Ms,
          unit: 'ms',
          against: against(bareRun.p50Ms),
        });
        figures.push({
          name: `p99, ${name}`,
          value: value.p99Ms,
          unit: 'ms',
          against: against(bareRun.p99Ms),
        });
      }
    }
    const peakRssMb = { 'duckserve server': await product.stop(), 'bare server': await bare.stop() };
    return {
      figures,
      promises: [
        promise(
          'every request is answered with its own prompt',
          failures === 0,
          `${failures} of ${sent} failed`,
        ),
      ],
      notes: ['client and server share the cores; the bare server sends the request body back as it is'],
      peakRssMb,
    };
  },
};
