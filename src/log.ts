// The log of the program: pino on standard error, one JSON line an event, never a secret, quiet unless asked.
import { pino } from 'pino';
import type { LogLevel } from '#config/settings.ts';
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

export function createLog(level: LogLevel): Log {
  return pino({ level, redact: REDACTED, base: null }, pino.destination({ dest: 2, sync: true }));
}
