// In which order the questions of a call are asked where the engine gains from it: prompts with a common beginning one
// after another, texts of about equal length together. Says nothing about whose call comes first.
import type { Input } from '#core/call.ts';
import type { RunnerLimits } from '#engines/engine.ts';

interface Asked {
  readonly input: Input;
  readonly tokens: number;
}

/** Answers go back to their places: the rows of a statement have no order of their own. */
export function inAskingOrder<Q extends Asked>(
  questions: readonly Q[],
  { isPadded, sharesPrefixes }: Pick<RunnerLimits, 'isPadded' | 'sharesPrefixes'>,
): readonly Q[] {
  const alike = sharesPrefixes ? inPromptOrder(questions) : questions;
  // Neighbours of about equal length waste little padding.
  return isPadded ? alike.toSorted((left, right) => right.tokens - left.tokens) : alike;
}

/** By the text of the prompt: engines that remember what they have read evaluate a common beginning once. */
export function inPromptOrder<Q extends Pick<Asked, 'input'>>(questions: readonly Q[]): readonly Q[] {
  if (questions.length < 2) return questions;
  const keyed = questions.map((question) => ({ question, text: promptText(question.input) }));
  keyed.sort((left, right) => (left.text < right.text ? -1 : left.text > right.text ? 1 : 0));
  return keyed.map(({ question }) => question);
}

/** Begins as the rendered prompt does: messages in order, each after its role. */
function promptText(input: Input): string {
  if ('prompt' in input) return input.prompt;
  if ('text' in input) return input.text;
  if (!('messages' in input)) return '';
  return input.messages
    .map(({ role, content }) => {
      if (content === null || typeof content === 'string') return `${role}\n${content ?? ''}`;
      return `${role}\n${content.map((part) => (part.type === 'text' ? part.text : '')).join('')}`;
    })
    .join('\n');
}
