// The process of a gateway: hears from the primary what to know, says when it listens, ends with the primary.

import { resolveSettings } from '#config/settings.ts';
import { createLog } from '../log.ts';
import { Gateway } from './gateway.ts';
import type { FromGateway, ToGateway } from './messages.ts';

const send = (message: FromGateway) => void process.send?.(message);
const { logLevel } = resolveSettings({ flags: {}, env: process.env });
let gateway: Gateway | undefined;

process.on('message', (message: ToGateway) => {
  if (message.type === 'start') {
    gateway = new Gateway(message.start, send, createLog(logLevel));
    gateway.open().then(
      (url) => send({ type: 'ready', url }),
      (error: unknown) =>
        send({ type: 'failed', message: error instanceof Error ? error.message : String(error) }),
    );
  } else if (message.type === 'drain') {
    void end();
  } else gateway?.take(message);
});

async function end(): Promise<void> {
  await gateway?.drain();
  // The last rows have left when this has.
  process.send?.({ type: 'drained' } satisfies FromGateway, () => process.disconnect());
}

// A terminal sends these to every process of the group; the primary decides when a gateway ends.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});
process.on('disconnect', () => process.exit(0));
send({ type: 'hello' });
