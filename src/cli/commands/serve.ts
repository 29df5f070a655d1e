// `duckserve serve` and `duckserve demo`: the HTTP server until it is told to stop, and the guided tour.
import type { Command } from 'commander';
import { ServingError } from '#core/errors.ts';
import { type Context, withCommonOptions } from '../context.ts';
import type { ServeOptions, Signals } from '../deps.ts';
import { wholeNumberOption } from './group.ts';

export function addServeCommands(program: Command, context: Context): void {
  withCommonOptions(program.command('serve'))
    .description('serve the OpenAI and Databricks REST interfaces over HTTP')
    .option('--port <port>', 'port; 0 takes a free one', wholeNumberOption(0, 65_535), 8080)
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--db <file>', 'database file (default: main.duckdb in the data directory)')
    .option('--tls-cert <file>', 'certificate (PEM); read again when it changes')
    .option('--tls-key <file>', 'its key (PEM)')
    .option('--allow <network...>', 'addresses that may connect, such as 10.0.0.0/8 (default: all)')
    .option('--trusted-proxy <network...>', 'proxies whose X-Forwarded-For is believed')
    .option(
      '--drain-seconds <n>',
      'how long requests may take to finish at the end',
      wholeNumberOption(0),
      30,
    )
    .option(
      '--workers <n>',
      'processes that answer callers, from 2 on beside the one that holds the database',
      wholeNumberOption(1, 256),
      1,
    )
    .action(async (flags: ServeFlags, command: Command) => {
      const options = toServeOptions(flags);
      const stop = untilStopped(context.signals);
      try {
        await context.withApp(
          command,
          async (app) => {
            const server = await context.deps.startHttp(app, options);
            await context.print(`duckserve listens on ${server.url}\n`);
            if (context.io.isStderrTty) for (const line of examples(server.url)) context.say(line);
            await stop.stopped;
            context.say('Closing; requests in flight are finished. Once more to quit at once.');
            await server.close();
          },
          context.dbPath(command, 'main.duckdb'),
        );
      } finally {
        stop.dispose();
      }
    });

  withCommonOptions(program.command('demo'))
    .description('a guided tour with models that run on this machine')
    .option('--no-chat', 'leave out the chat model (a download of about 320 MB)')
    .action(async (flags: { chat: boolean }, command: Command) => {
      await context.deps.runDemo({ dataDir: context.dataDir(command), chat: flags.chat, io: context.io });
    });
}

interface ServeFlags {
  readonly port: number;
  readonly host: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly allow?: readonly string[];
  readonly trustedProxy?: readonly string[];
  readonly drainSeconds: number;
  readonly workers: number;
}

function toServeOptions(flags: ServeFlags): ServeOptions {
  const { host, port, tlsCert, tlsKey, allow = [], trustedProxy = [], drainSeconds, workers } = flags;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ServingError('INVALID_PARAMETER', '--tls-cert and --tls-key go together: give both files.');
  }
  return {
    host,
    port,
    addresses: { allow, trustedProxies: trustedProxy },
    drainMs: drainSeconds * 1_000,
    ...(workers > 1 && { workers }),
    ...(tlsCert !== undefined && tlsKey !== undefined && { tls: { certFile: tlsCert, keyFile: tlsKey } }),
  };
}

/** Listens for one SIGINT or SIGTERM; after it the system's own handling is back, so that a second one kills. */
function untilStopped(signals: Signals): { readonly stopped: Promise<void>; dispose(): void } {
  let dispose = () => {};
  const stopped = new Promise<void>((resolve) => {
    const onSignal = () => {
      dispose();
      resolve();
    };
    dispose = () => {
      signals.off('SIGINT', onSignal);
      signals.off('SIGTERM', onSignal);
    };
    signals.on('SIGINT', onSignal);
    signals.on('SIGTERM', onSignal);
  });
  return { stopped, dispose: () => dispose() };
}

function examples(url: string): readonly string[] {
  const post = (path: string, body: string) =>
    `  curl ${url}${path} -H 'content-type: application/json' \\\n    -d '${body}'`;
  return [
    'Ctrl-C stops it. Try:',
    post(
      '/v1/chat/completions',
      '{"model": "echo-chat", "messages": [{"role": "user", "content": "hello"}]}',
    ),
    post('/v1/embeddings', '{"model": "embedded-all-minilm-l6-v2", "input": ["a duck", "a goose"]}'),
    post('/api/2.0/sql/statements', '{"statement": "SELECT 42 AS answer"}'),
  ];
}
