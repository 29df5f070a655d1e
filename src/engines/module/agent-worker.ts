// The thread of an agent: loads its module and carries out its calls, side by side. What the agent asks goes to the
// server and comes back. Knows nothing of endpoints and principals but what it is told.
import { parentPort, workerData } from 'node:worker_threads';
import type { Json, JsonObject } from '#core/json.ts';
import { AgentContext, type AskPort } from './agent-context.ts';
import type { FromThread, ThreadData, ToThread } from './messages.ts';

type AgentFunction = (request: unknown, context: unknown) => unknown;
interface Agent {
  readonly predict: AgentFunction | undefined;
  readonly predictStream: AgentFunction | undefined;
}
interface RunningCall {
  readonly context: AgentContext;
  readonly events: Promise<AsyncIterator<unknown>> | undefined;
}

const port = parentPort;
if (port === null) throw new Error('agent-worker.ts is the thread of an agent and is not run by itself');
const { module: address, typescriptLoaders } = workerData as ThreadData;
const tell = (message: FromThread): void => port.postMessage(message);
const calls = new Map<number, RunningCall>();

try {
  const agent = await loadAgent();
  port.on('message', (message: ToThread) => hear(agent, message));
  tell({ type: 'ready', streams: agent.predictStream !== undefined });
} catch (thrown) {
  tell({ type: 'unloadable', reason: describe(thrown) });
  port.close();
}

async function loadAgent(): Promise<Agent> {
  for (const loader of typescriptLoaders) {
    const { register } = (await import(loader)) as { register(): void };
    register();
  }
  const exported = (await import(address)) as Record<string, unknown>;
  const whole = exported.default;
  const named = (name: string) => exported[name] ?? (whole as Record<string, unknown> | undefined)?.[name];
  const bound = (name: string): AgentFunction | undefined => {
    const found = named(name);
    if (typeof found !== 'function') return undefined;
    return found.bind(exported[name] === undefined ? whole : undefined) as AgentFunction;
  };
  const predict = bound('predict') ?? (typeof whole === 'function' ? (whole as AgentFunction) : undefined);
  const predictStream = bound('predictStream');
  if (predict || predictStream) return { predict, predictStream };
  const names = Object.keys(exported).join(', ') || 'nothing';
  throw new Error(`it exports ${names}, and no function predict(request, context)`);
}

function hear(agent: Agent, message: ToThread): void {
  if (message.type === 'ping') tell({ type: 'pong' });
  else if (message.type === 'call') begin(agent, message);
  else if (message.type === 'next') void giveNext(message.id);
  else if (message.type === 'cancel') cancel(message.id, message.reason);
  else for (const { context } of calls.values()) if (context.hear(message)) return;
}

function begin(
  agent: Agent,
  { id, isStream, request, principal }: Extract<ToThread, { type: 'call' }>,
): void {
  const asking: AskPort = { tell, callId: id };
  const context = new AgentContext(asking, principal);
  const run = isStream ? (agent.predictStream ?? agent.predict) : (agent.predict ?? agent.predictStream);
  const answer = Promise.resolve().then(() => run?.(request, context.face));
  // What fails is told when the answer is wanted; the module may have returned a promise that nobody awaits yet.
  answer.catch(() => {});
  calls.set(id, { context, events: isStream ? answer.then(iteratorOf) : undefined });
  calls.get(id)?.events?.catch(() => {});
  if (!isStream) void giveWhole(id, answer);
}

async function giveWhole(id: number, answer: Promise<unknown>): Promise<void> {
  try {
    const values: Json[] = [];
    const whole = await answer;
    if (isIterable(whole)) for await (const event of whole) values.push(toJson(event));
    else values.push(toJson(whole));
    end(id, { type: 'result', id, values });
  } catch (thrown) {
    fail(id, thrown);
  }
}

async function giveNext(id: number): Promise<void> {
  const call = calls.get(id);
  if (!call?.events) return;
  try {
    const { done, value } = await (await call.events).next();
    if (!done) tell({ type: 'event', id, value: toJson(value) });
    // What a generator returns at its end may be its facts: usage, custom outputs.
    else end(id, { type: 'result', id, values: value === undefined ? [] : [toJson(value)] });
  } catch (thrown) {
    fail(id, thrown);
  }
}

function cancel(id: number, reason: string): void {
  const call = calls.get(id);
  if (!call) return;
  calls.delete(id);
  call.context.end(new DOMException(reason, 'AbortError'));
  // A generator that waits for the signal ends by it; one that waits for nothing is told to go.
  void call.events?.then((events) => events.return?.()).catch(() => {});
}

function end(id: number, message: FromThread): void {
  const call = calls.get(id);
  if (!call) return;
  calls.delete(id);
  call.context.end(new DOMException('The call is answered.', 'AbortError'));
  tell(message);
}

function fail(id: number, thrown: unknown): void {
  const code = (thrown as { code?: unknown } | null)?.code;
  const stack = thrown instanceof Error ? thrown.stack?.slice(0, 8_000) : undefined;
  end(id, {
    ...{ type: 'failed', id, said: describe(thrown) },
    ...(typeof code === 'string' && { code }),
    ...(stack !== undefined && { stack }),
  });
}

function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown).slice(0, 4_000);
  // Node puts the place of a syntax error before its name.
  const place = thrown.name === 'SyntaxError' ? /^file:\/\/\S+:\d+/.exec(thrown.stack ?? '')?.[0] : undefined;
  const at = place === undefined ? '' : ` (${place.split('/').at(-1)})`;
  return `${thrown.name}: ${thrown.message}${at}`.slice(0, 4_000);
}

function isIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}

/** Of what was returned: its events, or itself as the only one. */
function iteratorOf(value: unknown): AsyncIterator<unknown> {
  if (isIterable(value)) return value[Symbol.asyncIterator]();
  return (async function* () {
    yield value;
  })();
}

/** As the other side can read it: what JSON does not have is left out. */
function toJson(value: unknown): Json {
  if (typeof value === 'string') return value;
  const text = JSON.stringify(value);
  return text === undefined ? null : (JSON.parse(text) as JsonObject);
}
