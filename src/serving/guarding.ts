// Where the guard of an endpoint is asked: before the first look at an answer, and before an answer is stored or
// given. What a guard says is final: nothing is asked again and nobody else is asked instead.
import type { Call, Input, Output, StreamEvent } from '#core/call.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Guard } from '#core/policies.ts';
import type { CallRun } from './call-run.ts';
import type { Outcome } from './outcomes.ts';
import { eventsOf, StreamedOutput } from './streamed-output.ts';

/** Replaces inputs that are masked and settles those that are refused. */
export async function guardInputs(run: CallRun, guard: Guard | undefined): Promise<void> {
  if (!guard?.inputs) return;
  const { call } = run;
  const verdicts = await run.whileLive(guard.inputs({ ...call, signal: run.signal }));
  if (verdicts.length !== call.inputs.length) {
    throw new ServingError(
      'INTERNAL',
      `The guard of endpoint '${call.endpoint}' judged ${verdicts.length} of ${call.inputs.length} inputs, so none was sent.`,
    );
  }
  const inputs: Input[] = [];
  let isChanged = false;
  for (const [slot, verdict] of verdicts.entries()) {
    const input = call.inputs[slot] as Input;
    if (verdict instanceof ServingError) run.refusedSlots.add(slot);
    else if (verdict !== input) isChanged = true;
    inputs.push(verdict instanceof ServingError ? input : verdict);
  }
  if (isChanged) run.replaceInputs(inputs);
  for (const [slot, verdict] of verdicts.entries()) {
    if (!(verdict instanceof ServingError)) continue;
    // A stream has one input and no items to put its refusal into.
    if (run.isStreaming) throw verdict;
    run.settle(slot, { ok: false, error: verdict });
  }
}

/** The answers as they may be given, side by side. A guard that fails withholds. `signal`: nobody waits any more. */
export function guardOutcomes(
  guard: Guard,
  outcomes: readonly Outcome[],
  signal: AbortSignal,
): Promise<Outcome[]> {
  return Promise.all(
    outcomes.map(async (outcome): Promise<Outcome> => {
      if (!('item' in outcome)) return outcome;
      const { question, item } = outcome;
      const verdict = await judge(guard, { ...question.payer.call, signal }, item.output);
      if (verdict instanceof ServingError) return { question, error: verdict, isFinal: true };
      return verdict === item.output ? outcome : { question, item: { ...item, output: verdict } };
    }),
  );
}

async function judge(guard: Guard, call: Call, output: Output): Promise<Output | ServingError> {
  if (!guard.output || !('finishReason' in output)) return output;
  try {
    return await guard.output(call, withoutCustom(output));
  } catch (thrown) {
    return toServingError(thrown);
  }
}

/** Events as they may be seen. A guard that knows whole answers only holds all of them back until the end. */
export function guardEvents(
  guard: Guard | undefined,
  call: Call,
  events: AsyncIterable<StreamEvent>,
): AsyncIterator<StreamEvent> {
  if (guard?.stream) return guard.stream(call, events)[Symbol.asyncIterator]();
  if (guard?.output) return guardWhole(guard, call, events);
  return events[Symbol.asyncIterator]();
}

/** Guards read text; what an agent gives beside it would pass unread. */
function withoutCustom(output: Output): Output {
  if (!('customOutputs' in output)) return output;
  const { customOutputs: _unread, ...rest } = output;
  return rest;
}

async function* guardWhole(
  guard: Guard,
  call: Call,
  events: AsyncIterable<StreamEvent>,
): AsyncGenerator<StreamEvent> {
  const streamed = new StreamedOutput(call.task);
  for await (const event of events) {
    streamed.take(event);
    if (event.type !== 'end') continue;
    const verdict = await judge(guard, call, streamed.output(event.finishReason));
    if (verdict instanceof ServingError) throw verdict;
    yield* eventsOf(verdict, event.usage);
  }
}
