// The program: builds what the command line needs and runs it. Started by bin/duckserve.cjs, which has set the
// size of the thread pool before this file is read.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AppHandle, CliDeps, Io } from '#cli/program.ts';
import { runCli } from '#cli/program.ts';
import { type LogLevel, resolveSettings } from '#config/settings.ts';
import { packageRoot } from '#storage/package-root.ts';
import type { App } from './app.ts';
import { createLog } from './log.ts';

const io: Io = {
  stdout: process.stdout,
  stderr: process.stderr,
  stdin: process.stdin,
  isStdoutTty: process.stdout.isTTY === true,
  isStderrTty: process.stderr.isTTY === true,
  columns: process.stdout.columns ?? process.stderr.columns ?? 100,
};

const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
  version: string;
};

// Floors are imported when a command needs them, so that --help is instant.
const deps: CliDeps = {
  io,
  version,
  env: process.env,
  openApp: async (options) => {
    const { openApp } = await import('./app.ts');
    return openApp({ ...options, log: createLog(logLevel(options.verbose)) });
  },
  startHttp: async (handle: AppHandle, options) => {
    const { serve } = await import('./serve.ts');
    // The command line hands back what openApp above gave it.
    return serve(handle as App, options, { log: createLog(logLevel(false)), version, env: process.env });
  },
  askServer: async (dataDir, request) => {
    const { askControlSocket } = await import('#server/http/control-client.ts');
    return askControlSocket(dataDir, request);
  },
  runDemo: async (options) => {
    const { runDemo } = await import('./demo/demo.ts');
    await runDemo(options);
  },
  pullWeights: async (source, dataDir, io, request) => {
    const { pullWeights } = await import('./pull-weights.ts');
    return await pullWeights(source, dataDir, io, request);
  },
};

/** DUCKSERVE_LOG decides; without it --verbose says more. */
function logLevel(isVerbose: boolean): LogLevel {
  const flags = isVerbose && !process.env.DUCKSERVE_LOG ? { logLevel: 'debug' } : {};
  return resolveSettings({ flags, env: process.env }).logLevel;
}

process.exitCode = await runCli(process.argv.slice(2), deps);
