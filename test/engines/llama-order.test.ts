// The order in which the queue asks an engine that remembers beginnings: by the text of the prompts, in each call.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { inPromptOrder } from '#serving/prompt-order.ts';
import { answerText, bench, chats, ScriptedEngine } from '../serving/support.ts';

const TEXTS = ['kind: b', 'language: a', 'kind: a', 'language: b', 'kind: c'];

async function askedBy(sharesPrefixes: boolean) {
  const engine = new ScriptedEngine(answerText, { maxConcurrency: 1, sharesPrefixes });
  const { serving, call } = bench([engine]);
  const { items } = await serving.invoke(call(chats(...TEXTS)));
  return { asked: engine.askedTexts, answers: items };
}

test('rows are asked in the order of their text, and answers go to the rows they are for', async () => {
  const sorted = await askedBy(true);
  expect(sorted.asked).toEqual(TEXTS.toSorted());
  const plain = await askedBy(false);
  expect(plain.asked).toEqual(TEXTS);
  expect(sorted.answers).toEqual(plain.answers);
});

test('putting in order loses and doubles nothing, for chats and prompts', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (texts) => {
      const prompts = inPromptOrder(texts.map((prompt) => ({ input: { prompt } })));
      expect(prompts.map(({ input }) => input.prompt)).toEqual(texts.toSorted());
      const asked = texts.map((content) => ({ input: { messages: [{ role: 'user' as const, content }] } }));
      const chatted = inPromptOrder(asked).map(({ input }) => input.messages[0]?.content ?? '');
      expect(chatted).toEqual(texts.toSorted());
    }),
  );
});
