// Opens the answer store of its argument, writes and reads. A process of its own, because a damaged file may end it.
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { SILENT_LOG } from '#core/log.ts';
import { openAnswerStore } from '#storage/answer-store.ts';

const store = await openAnswerStore({
  path: process.argv[2] ?? '',
  maxEntries: 10,
  ttlMs: Number.POSITIVE_INFINITY,
  memoryEntries: 1,
  clock: SYSTEM_CLOCK,
  log: SILENT_LOG,
});
store.put('key', {
  output: { content: 'kept', finishReason: 'stop' },
  usage: { inputTokens: 1, outputTokens: 1 },
  endpoint: 'e',
  model: 'm',
  task: 'llm/v1/chat',
  createdAtMs: SYSTEM_CLOCK.now(),
});
await store.flush();
if (store.count === 1 && store.get('key')) console.log('a store that works');
await store.close();
