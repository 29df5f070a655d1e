// Agents written with MLflow, asked at each door that agents have: chat, the Responses API, streams, and SQL.
import { describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { invocations, post, sql, stage } from './stage.ts';

const { python } = stage();
const SAID = 'You said: quack, twice';
const messages = [{ role: 'user', content: 'quack, twice' }];
const AGENTS = ['agent-responses', 'agent-chat', 'agent-chat-model'];

async function asked(path: string, body: Json): Promise<string> {
  const { status, text } = await post(path, body);
  if (status !== 200) throw new Error(`${path}: ${status} ${text}`);
  return text;
}

/** Data of the events of a stream, in order. */
const eventsOf = (text: string): readonly string[] =>
  text.split('\n').flatMap((line) => (line.startsWith('data: ') ? [line.slice('data: '.length)] : []));

interface Chat {
  readonly choices: readonly {
    readonly message?: { readonly content: string };
    readonly delta?: { readonly content?: string };
  }[];
}

describe.skipIf('reason' in python).each(AGENTS)('%s', (name) => {
  it.each([
    ['/serving-endpoints/{name}/invocations', invocations(name), {}],
    ['/v1/chat/completions', '/v1/chat/completions', { model: name }],
  ])('answers a chat at %s', async (_title, path, more) => {
    const answer = JSON.parse(await asked(path, { messages, ...more })) as Chat;
    expect(answer.choices[0]?.message?.content).toBe(SAID);
  });

  it('streams a chat in pieces that make the whole, to the end', async () => {
    const events = eventsOf(await asked('/v1/chat/completions', { model: name, messages, stream: true }));
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => JSON.parse(event) as Chat);
    const pieces = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta?.content ?? ''));
    expect(pieces.join('')).toBe(SAID);
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThan(1);
  });

  it('answers at /v1/responses', async () => {
    const text = await asked('/v1/responses', { model: name, input: 'quack, twice' });
    const { output } = JSON.parse(text) as { output: { content: { text: string }[] }[] };
    expect(output.at(-1)?.content[0]?.text).toBe(SAID);
  });

  it('streams the events of the Responses API up to response.completed', async () => {
    const events = eventsOf(
      await asked('/v1/responses', { model: name, input: 'quack, twice', stream: true }),
    );
    const parsed = events
      .filter((event) => event !== '[DONE]')
      .map((event) => JSON.parse(event) as { type: string; delta?: string });
    const deltas = parsed.filter(({ type }) => type === 'response.output_text.delta');
    expect(deltas.map(({ delta }) => delta).join('')).toBe(SAID);
    expect(parsed.at(-1)?.type).toBe('response.completed');
  });

  it('answers ai_query row by row', async () => {
    const rows = await sql(`SELECT ai_query('${name}', 'number ' || i) FROM range(3) t(i) ORDER BY i`);
    expect(rows).toEqual([['You said: number 0'], ['You said: number 1'], ['You said: number 2']]);
  });
});

describe.skipIf('reason' in python)('a ResponsesAgent', () => {
  it('takes `input` at its invocations, as Databricks has it, and gives custom_outputs back', async () => {
    const text = await asked(invocations('agent-responses'), {
      input: [{ role: 'user', content: 'quack, twice' }],
      custom_inputs: { trail: 7 },
    });
    const { output, custom_outputs } = JSON.parse(text) as {
      output: { content: { text: string }[] }[];
      custom_outputs?: Json;
    };
    expect(output.at(-1)?.content[0]?.text).toBe(SAID);
    expect(custom_outputs).toEqual({ trail: 7 });
  });
});
