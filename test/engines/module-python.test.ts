// Agents in Python, without MLflow: what each kind is handed, what comes back, whom it asks and as whom. Agents made
// with MLflow itself are in test/models/agents.test.ts.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { ChatOutput, StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { AskedByModel, Batch, EngineContext, Runner } from '#engines/engine.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { collect, expectCode } from './contract.ts';
import { ANN, batchOf } from './module-support.ts';
import { contextOf, NO_PYTHON, recordLog, targetOf, writeModel } from './python-models.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (let next = undo.pop(); next !== undefined; next = undo.pop()) await next();
});

/** `body`: of the class of the agent. */
async function openAgent(kind: string, body: string, context: Partial<EngineContext> = {}): Promise<Runner> {
  const parent = mkdtempSync(join(tmpdir(), 'duckserve-pyagent-'));
  undo.push(() => rmSync(parent, { recursive: true, force: true }));
  const indented = body.replace(/^/gm, '    ');
  const loader = `import contextvars, json, threading, time
from duckserve_worker import agents
class Agent:
    agent = "${kind}"
${indented}
def _load_pyfunc(data_path):
    return Agent()
`;
  const source = await writeModel(parent, { predict: 'pass', files: { 'code/own_loader.py': loader } });
  const target = targetOf(source, { agent: kind }, { task: 'llm/v1/chat', isPersonal: true });
  const runner = await pythonEngine.open(target, contextOf(recordLog().log, context));
  undo.push(() => runner.close());
  return runner;
}

const asAnn = (text: string, extra: Partial<Batch> = {}): Batch =>
  batchOf(text, { caller: { principal: ANN, origin: 'http', depth: 2, callId: 'c' }, ...extra });

async function outputOf(runner: Runner, batch: Batch): Promise<ChatOutput> {
  const [item] = (await runner.invoke(batch)).items;
  if (!item?.ok) throw item?.error;
  return item.output as ChatOutput;
}

const HISTORY: Partial<Batch> = {
  inputs: [
    {
      messages: [
        { role: 'system', content: 'be short' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look ' },
            { type: 'text', text: 'here' },
          ],
        },
        { role: 'assistant', content: null, toolCalls: [{ id: 'c1', name: 'find', arguments: '{"x":1}' }] },
        { role: 'tool', content: 'found', toolCallId: 'c1' },
      ],
    },
  ],
  parameters: {
    ...{ maxTokens: 9, temperature: 0, tools: [{ name: 'find', description: 'finds' }] },
    ...{ customInputs: { city: 'Ulm' }, conversation: { conversation_id: 'k' } },
  },
};
const WHOLE = 'def predict(self, request):\n    return json.dumps(request)';

describe.skipIf(NO_PYTHON)('an agent in Python', () => {
  it('of the kind responses is handed items, and parameters as the Responses API has them', async () => {
    const { content } = await outputOf(await openAgent('responses', WHOLE), asAnn('', HISTORY));
    expect(JSON.parse(content ?? '')).toEqual({
      input: [
        { type: 'message', role: 'system', content: 'be short' },
        { type: 'message', role: 'user', content: 'look here' },
        { type: 'function_call', id: 'c1', call_id: 'c1', name: 'find', arguments: '{"x":1}' },
        { type: 'function_call_output', call_id: 'c1', output: 'found' },
      ],
      ...{ max_output_tokens: 9, temperature: 0 },
      tools: [{ type: 'function', name: 'find', description: 'finds' }],
      custom_inputs: { city: 'Ulm' },
      context: { conversation_id: 'k' },
    });
  });

  it.each([
    ['chat_agent', { custom_inputs: { city: 'Ulm' }, context: { conversation_id: 'k' } }],
    [
      'chat_model',
      {
        ...{ temperature: 0, max_tokens: 9, custom_inputs: { city: 'Ulm' } },
        tools: [{ type: 'function', function: { name: 'find', description: 'finds' } }],
      },
    ],
  ])('of the kind %s is handed messages with texts', async (kind, rest) => {
    const { content } = await outputOf(await openAgent(kind, WHOLE), asAnn('', HISTORY));
    expect(JSON.parse(content ?? '')).toEqual({
      messages: [
        { role: 'system', content: 'be short' },
        { role: 'user', content: 'look here' },
        {
          role: 'assistant',
          tool_calls: [{ id: 'c1', type: 'function', function: { name: 'find', arguments: '{"x":1}' } }],
        },
        { role: 'tool', content: 'found', tool_call_id: 'c1' },
      ],
      ...rest,
    });
  });

  it('streams what it yields, and one without predict_stream is no stream', async () => {
    const runner = await openAgent(
      'responses',
      `def predict(self, request):
    return {"output": [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": "ab"}]}]}
def predict_stream(self, request):
    yield {"type": "response.output_text.delta", "item_id": "m", "delta": "a"}
    yield {"type": "response.output_text.delta", "item_id": "m", "delta": "b"}
    yield {"type": "response.output_item.done", "item": {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "ab"}]}}`,
    );
    const events = await collect(runner.stream?.(asAnn('hi')) ?? failed());
    expect(events.map((event) => (event.type === 'delta' ? event.text : event.type))).toEqual([
      'a',
      'b',
      'end',
    ]);
    expect((await outputOf(runner, asAnn('hi'))).content).toBe('ab');
    expect((await openAgent('responses', WHOLE)).stream).toBeUndefined();
  });

  describe('that asks', () => {
    const asked: AskedByModel[] = [];
    const context: Partial<EngineContext> = {
      ask: async (question) => {
        asked.push(question);
        if (question.endpoint === 'closed') throw new ServingError('PERMISSION_DENIED', "'ann' may not.");
        const text = 'messages' in question.input ? question.input.messages.at(-1)?.content : '';
        const output = { content: `heard ${String(text)}`, finishReason: 'stop' as const };
        return { ok: true, output, usage: { inputTokens: 1, outputTokens: 2 }, cached: false };
      },
      askStream: async (question) => {
        asked.push(question);
        return (async function* (): AsyncGenerator<StreamEvent> {
          yield { type: 'delta', text: 'a' };
          yield { type: 'delta', text: 'b' };
          yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 2 } };
        })();
      },
    };

    it('is answered as its caller, whole and as events', async () => {
      asked.length = 0;
      const runner = await openAgent(
        'responses',
        `def predict(self, request):
    answer = agents.ask("llm", messages=request["input"][-1]["content"], parameters={"temperature": 0})
    return agents.principal()["name"] + " " + answer["content"]
def predict_stream(self, request):
    for event in agents.ask_stream("llm", messages="x"):
        yield event`,
        context,
      );
      expect((await outputOf(runner, asAnn('hi'))).content).toBe('ann heard hi');
      const events = await collect(runner.stream?.(asAnn('hi')) ?? failed());
      expect(events.map((event) => (event.type === 'delta' ? event.text : event.type))).toEqual([
        'a',
        'b',
        'end',
      ]);
      expect(asked).toMatchObject([
        {
          endpoint: 'llm',
          parameters: { temperature: 0 },
          caller: { principal: ANN, depth: 2, callId: 'c' },
        },
        { endpoint: 'llm', caller: { principal: ANN } },
      ]);
    });

    it('fails with the code of what it asked, where it does not catch it', async () => {
      const runner = await openAgent(
        'chat_agent',
        'def predict(self, request):\n    return agents.ask("closed", messages="x")["content"]',
        context,
      );
      const [item] = (await runner.invoke(asAnn('hi'))).items;
      expect(item).toMatchObject({
        ok: false,
        error: { code: 'PERMISSION_DENIED', message: expect.stringContaining("'ann' may not.") },
      });
    });

    it('side by side asks each time as the caller of that call', async () => {
      asked.length = 0;
      const runner = await openAgent(
        'chat_agent',
        `def predict(self, request):
    time.sleep(0.05)
    return agents.principal()["name"] + " " + agents.ask("llm", messages=agents.principal()["name"])["content"]`,
        context,
      );
      const names = ['ann', 'bob', 'cem', 'dot'];
      const answers = await Promise.all(
        names.map((name) =>
          outputOf(
            runner,
            batchOf('hi', { caller: { principal: { ...ANN, name }, origin: 'http', depth: 0 } }),
          ),
        ),
      );
      expect(answers.map(({ content }) => content)).toEqual(names.map((name) => `${name} heard ${name}`));
      for (const { caller, input } of asked) {
        expect('messages' in input && input.messages[0]?.content).toBe(caller.principal.name);
      }
    });

    it('from a thread of its own without the context of its call is told how to', async () => {
      const runner = await openAgent(
        'chat_agent',
        `def predict(self, request):
    said = []
    def ask():
        try:
            said.append(agents.ask("llm", messages="x")["content"])
        except LookupError as error:
            said.append("copy_context" in str(error))
    for run in (ask, lambda context=contextvars.copy_context(): context.run(ask)):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return json.dumps(said)`,
        context,
      );
      expect((await outputOf(runner, asAnn('hi'))).content).toBe('[true, "heard x"]');
    });
  });

  it('that raises fails its call alone, with the type and the text', async () => {
    const runner = await openAgent(
      'chat_agent',
      `def predict(self, request):
    if request["messages"][0]["content"] == "bad":
        raise ValueError("I cannot")
    return "fine"`,
    );
    const [item] = (await runner.invoke(asAnn('bad'))).items;
    expect(item).toMatchObject({
      ok: false,
      error: { code: 'UPSTREAM_REJECTED', message: expect.stringContaining('ValueError') },
    });
    expect((await outputOf(runner, asAnn('good'))).content).toBe('fine');
  });

  it('whose stream nobody reads any more is not run to its end', async () => {
    const runner = await openAgent(
      'chat_agent',
      `ended = False
def predict(self, request):
    return str(Agent.ended)
def predict_stream(self, request):
    try:
        while True:
            yield "x"
            time.sleep(0.005)
    finally:
        Agent.ended = True`,
    );
    const stream = runner.stream?.(asAnn('hi'))[Symbol.asyncIterator]() ?? failed();
    await stream.next();
    await stream.return?.();
    const said = async () => (await outputOf(runner, asAnn('hi'))).content;
    await expect.poll(said, { timeout: 5_000 }).toBe('True');
  });

  it('that dies fails its calls as MODEL_CRASHED', async () => {
    const runner = await openAgent('chat_agent', 'def predict(self, request):\n    import os; os._exit(3)');
    await expectCode('MODEL_CRASHED', runner.invoke(asAnn('hi')));
  });
});

function failed(): never {
  throw new Error('It should have been there.');
}
