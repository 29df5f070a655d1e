// From inputs to questions: the key of each input, what the answer store has of them, and what is already on its
// way for another call. What remains has to be asked, each distinct input once.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AnswerItem, CacheMode, Call, Input } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { answerKey, sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';
import type { Guard } from '#core/policies.ts';
import type { AnswerStore, StoredAnswer } from '#core/stores.ts';
import type { CallRun } from './call-run.ts';
import { canonicalInput, sizeError } from './inputs.ts';
import { Question } from './question.ts';

/** A million look-ups take seconds; nobody else of this process should wait that long. */
const MAX_TURN_MS = 15;
const INPUTS_PER_CLOCK_LOOK = 256;

export const readsStore = (cache: CacheMode): boolean => cache === 'on' || cache === 'read';
export const writesStore = (cache: CacheMode): boolean => cache === 'on' || cache === 'write';

/** An answer that depends on who asks is kept only for who has asked for that. */
export function cacheModeOf({ cache, isCacheChosen }: Call, isPersonal: boolean | undefined): CacheMode {
  return isPersonal && isCacheChosen !== true ? 'off' : cache;
}

/**
 * What all keys of a call share. From the caller's own parameters, not from what a budget made of them. The rules
 * on outputs are part of it: a raw answer of another endpoint on the same model is none of a guarded one. So is the
 * principal where an answer may depend on who asks.
 */
export function scopeOf(
  target: Target,
  { task, parameters, principal }: Pick<Call, 'task' | 'parameters' | 'principal'>,
  guard: Guard | undefined,
  isPersonal: boolean | undefined = target.isPersonal,
): string {
  const rules = guard?.fingerprint || undefined;
  const who = isPersonal ? principal.id : undefined;
  return sha256Hex(canonicalJson({ fingerprint: target.fingerprint, task, parameters, rules, who }));
}

export function keyOf(scope: string, input: Input): string {
  return answerKey(scope, canonicalInput(input));
}

export function storedItem({ output, usage }: StoredAnswer): AnswerItem {
  return { ok: true, output, usage, cached: true };
}

/** Settles what is stored and gives the questions that have to be sent. Questions in flight are joined. */
export async function lookUp(
  run: CallRun,
  answers: AnswerStore,
  inFlight: Map<string, Question>,
): Promise<readonly Question[]> {
  const { call, target, terms, isPersonal } = run;
  const mode = cacheModeOf(call, isPersonal);
  const isRead = readsStore(mode);
  const isStored = writesStore(mode);
  // An agent that asks itself would wait for its own answer.
  const isJoined = isRead && !(isPersonal && (call.depth ?? 0) > 0);
  const scope = scopeOf(target, call, terms.guard, isPersonal);
  const asked = new Map<string, Question>();
  await inTurns(call.inputs, (input, slot) => {
    if (run.isSettled || run.items[slot] !== undefined) return;
    const error = sizeError(input);
    if (error) return void run.settle(slot, { ok: false, error });
    const key = keyOf(scope, input);
    const own = asked.size > 0 ? asked.get(key) : undefined;
    if (own && !own.isSettled) return own.join(run, slot, isStored);
    const stored = isRead ? answers.get(key) : undefined;
    if (stored) return void run.settle(slot, storedItem(stored));
    const other = isJoined ? inFlight.get(key) : undefined;
    if (other && other.payer.terms.parametersKey === terms.parametersKey)
      return other.join(run, slot, isStored);
    const question = new Question(key, input, run, slot, target, isStored);
    run.questions.push(question);
    asked.set(key, question);
    if (isJoined && isStored && !other) inFlight.set(key, question);
  });
  return [...asked.values()];
}

/** How many inputs are stored, and those that are not (each distinct one once). Guards of inputs are not asked. */
export async function countStored(
  call: Call,
  target: Target,
  answers: AnswerStore,
  guard: Guard | undefined,
): Promise<{ readonly cached: number; readonly missing: readonly Input[] }> {
  const scope = scopeOf(target, call, guard);
  const isRead = readsStore(cacheModeOf(call, target.isPersonal));
  const missing = new Map<string, Input>();
  let cached = 0;
  await inTurns(call.inputs, (input) => {
    const key = keyOf(scope, input);
    if (missing.has(key)) return;
    if (isRead && answers.get(key)) cached++;
    else missing.set(key, input);
  });
  return { cached, missing: [...missing.values()] };
}

/** Walks a long list without holding up the event loop. */
async function inTurns(inputs: readonly Input[], visit: (input: Input, slot: number) => void): Promise<void> {
  let turnBeganAt = performance.now();
  for (let slot = 0; slot < inputs.length; slot++) {
    const input = inputs[slot];
    if (input) visit(input, slot);
    if (slot % INPUTS_PER_CLOCK_LOOK === 0 && performance.now() - turnBeganAt > MAX_TURN_MS) {
      await nextTurn();
      turnBeganAt = performance.now();
    }
  }
}
