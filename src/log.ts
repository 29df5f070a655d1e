// The log of the program: pino on standard error, one JSON line an event, never a secret, quiet unless asked.
import { pino } from 'pino';
import type { Log } from '#core/log.ts';

const REDACTED = [
  'apiKey',
  'api_key',
  'authorization',
  '*.apiKey',
  '*.api_key',
  '*.authorization',
  'headers',
  '*.headers',
];

/** Level from DUCKSERVE_LOG (debug, info, warn, error, silent); `warn` by default, `debug` under --verbose. */
export function createLog(env: NodeJS.ProcessEnv, isVerbose: boolean): Log {
  const level = env.DUCKSERVE_LOG ?? (isVerbose ? 'debug' : 'warn');
  const destination = pino.destination({ dest: 2, sync: true });
  return pino({ level: isLevel(level) ? level : 'warn', redact: REDACTED, base: null }, destination);
}

function isLevel(level: string): boolean {
  return ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'].includes(level);
}
