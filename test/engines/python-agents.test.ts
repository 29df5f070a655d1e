// Agents in a worker of Python: whole answers and streams, what they ask back, and who has gone meanwhile. The agents
// here need no MLflow; those of its classes are tested with the real library.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { LOCAL_OWNER, type StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { AskedByModel, Batch, EngineContext, Runner } from '#engines/engine.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { contextOf, NO_PYTHON, targetOf, writeModel } from './python-models.ts';

let folder = '';
const opened: Runner[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-agents-'));
});
afterEach(async () => {
  for (const runner of opened.splice(0)) await runner.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const AGENT = `import time
from duckserve_worker import agents

class Agent:
    agent = "responses"
    def predict(self, request):
        text = request["input"][-1]["content"]
        if text == "fail":
            raise ValueError("cannot do that")
        if text.startswith("ask "):
            answer = agents.ask("other", messages=text[4:])
            text = answer["content"] + " for " + agents.principal()["name"]
        return {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]}
    def predict_stream(self, request):
        text = request["input"][-1]["content"]
        if text == "endless":
            while True:
                time.sleep(0.005)
                yield {"type": "response.output_text.delta", "item_id": "m", "delta": "again "}
        if text.startswith("ask "):
            for event in agents.ask_stream("other", messages=text[4:]):
                if event["type"] == "delta":
                    yield {"type": "response.output_text.delta", "item_id": "m", "delta": event["text"]}
            return
        for word in text.split():
            yield {"type": "response.output_text.delta", "item_id": "m", "delta": word + " "}
        if "break" in text:
            raise RuntimeError("in the middle")

def _load_pyfunc(data_path):
    return Agent()
`;

async function open(changes: Partial<EngineContext> = {}): Promise<Runner> {
  const source = await writeModel(folder, { predict: 'pass', files: { 'code/own_loader.py': AGENT } });
  const target = targetOf(source, { agent: 'responses' }, { task: 'llm/v1/chat' });
  const runner = await pythonEngine.open(target, contextOf(SILENT_LOG, changes));
  opened.push(runner);
  return runner;
}

const batchOf = (content: string, signal = new AbortController().signal): Batch => ({
  task: 'llm/v1/chat',
  inputs: [{ messages: [{ role: 'user', content }] }],
  parameters: {},
  signal,
  caller: { principal: LOCAL_OWNER, origin: 'library', depth: 0 },
});
const ask = async (runner: Runner, content: string) => (await runner.invoke(batchOf(content))).items[0];

async function collect(events: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const all: StreamEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}
const textOf = (events: readonly StreamEvent[]) =>
  events.map((event) => (event.type === 'delta' ? event.text : '')).join('');

describe.skipIf(NO_PYTHON)(`agents in Python${NO_PYTHON ? ` (skipped: ${NO_PYTHON})` : ''}`, () => {
  test('answer whole and as events, and both say the same', async () => {
    const runner = await open();
    expect(runner.limits.maxInputs).toBe(1);
    expect(await ask(runner, 'hello there')).toMatchObject({ ok: true, output: { content: 'hello there' } });
    const events = await collect(runner.stream!(batchOf('hello there')));
    expect(textOf(events).trim()).toBe('hello there');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'stop' });
  });

  test('ask other endpoints in the name of their caller', async () => {
    const asked: AskedByModel[] = [];
    const runner = await open({
      ask: async (question) => {
        asked.push(question);
        const usage = { inputTokens: 1, outputTokens: 1 };
        return { ok: true, output: { content: 'answered', finishReason: 'stop' }, usage, cached: false };
      },
      askStream: async () =>
        (async function* (): AsyncGenerator<StreamEvent> {
          yield { type: 'delta', text: 'in ' };
          yield { type: 'delta', text: 'pieces' };
          yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 2 } };
        })(),
    });
    expect(await ask(runner, 'ask what')).toMatchObject({
      ok: true,
      output: { content: 'answered for local' },
    });
    expect(asked[0]).toMatchObject({ endpoint: 'other', caller: { principal: LOCAL_OWNER } });
    expect(textOf(await collect(runner.stream!(batchOf('ask what'))))).toBe('in pieces');
  });

  test('what they are refused keeps its code when they do not catch it', async () => {
    const runner = await open({
      ask: async () => {
        throw new ServingError('PERMISSION_DENIED', "You may not query 'other'.");
      },
    });
    expect(await ask(runner, 'ask what')).toMatchObject({
      ok: false,
      error: { code: 'PERMISSION_DENIED', message: expect.stringContaining("'other'") },
    });
  });

  test('what they raise is their own failure, also in the middle of a stream', async () => {
    const runner = await open();
    expect(await ask(runner, 'fail')).toMatchObject({
      ok: false,
      error: { code: 'UPSTREAM_REJECTED', message: expect.stringContaining('ValueError: cannot do that') },
    });
    const seen: StreamEvent[] = [];
    const reading = (async () => {
      for await (const event of runner.stream!(batchOf('break it'))) seen.push(event);
    })();
    await expect(reading).rejects.toMatchObject({ message: expect.stringContaining('in the middle') });
    expect(textOf(seen).trim()).toBe('break it');
    expect(await ask(runner, 'still here')).toMatchObject({ ok: true });
  });

  test('a stream that is left or cancelled ends in the process, too', async () => {
    const runner = await open();
    // As many as the process has places: were one of them kept, the last answer would never come.
    for (let round = 0; round < 8; round++) {
      for await (const event of runner.stream!(batchOf('endless'))) {
        expect(event.type).toBe('delta');
        break;
      }
    }
    const controller = new AbortController();
    const reading = collect(runner.stream!(batchOf('endless', controller.signal)));
    controller.abort(new ServingError('CANCELLED', 'gone'));
    await expect(reading).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await ask(runner, 'free again')).toMatchObject({ ok: true });
  });
});
