// The process that one part runs in: hears what to run from parts.ts, sends the value, then its peak memory.
import type { PartMessage, PartRequest } from './parts.ts';

const say = (message: PartMessage): Promise<void> =>
  new Promise((resolve) => {
    process.send?.(message, () => resolve());
  });

// Without the benchmark nobody would ever stop it.
process.on('disconnect', () => process.exit(1));

process.once('message', async ({ module, part, args }: PartRequest) => {
  try {
    const exported = (await import(module)) as Record<string, (args: unknown) => Promise<unknown>>;
    const result = await exported[part]?.(args);
    await say({ type: 'value', value: result });
    // Kilobytes on Linux and macOS alike.
    await say({ type: 'ended', peakRssMb: process.resourceUsage().maxRSS / 1_024 });
    process.exit(0);
  } catch (error) {
    await say({
      type: 'failed',
      reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    process.exit(1);
  }
});
