// A process that writes answers without end and prints the last index a flush acknowledged, until it is killed.
import { writeSync } from 'node:fs';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { answerKey } from '#core/fingerprint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { openAnswerStore } from '#storage/answer-store.ts';

const path = process.argv[2] ?? '';
const store = await openAnswerStore({
  path,
  maxEntries: 1_000_000,
  ttlMs: Number.POSITIVE_INFINITY,
  memoryEntries: 10,
  clock: SYSTEM_CLOCK,
  log: SILENT_LOG,
});
for (let index = 0; ; index += 1) {
  store.put(answerKey('kill', String(index)), {
    output: { content: `answer ${index} ${'x'.repeat(200)}`, finishReason: 'stop' },
    usage: { inputTokens: 1, outputTokens: 1 },
    endpoint: 'e',
    model: 'm',
    task: 'llm/v1/chat',
    createdAtMs: Date.now(),
  });
  if (index % 50 === 49) {
    await store.flush();
    writeSync(1, `${index}\n`);
  }
}
