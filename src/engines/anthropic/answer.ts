// Reading whole answers of Anthropic's Messages API. Not here: streams (stream.ts) and statuses (http/failures.ts).
import type { ChatInput, ChatOutput, FinishReason, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import { type AnswerTool, unwrapAnswer } from '../answer-tool.ts';
import type { RunItem } from '../engine.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';

export function readMessage(
  body: unknown,
  input: ChatInput,
  answerTool: AnswerTool | undefined,
  invalid: (what: string) => Error,
): RunItem {
  if (!isJsonObject(body) || !Array.isArray(body.content)) throw invalid('no `content` list');
  const texts: string[] = [];
  const toolCalls: ToolCall[] = [];
  let structured: string | undefined;
  for (const [index, block] of body.content.entries()) {
    if (!isJsonObject(block)) throw invalid('a content block that is no object');
    if (block.type === 'text' && typeof block.text === 'string') texts.push(block.text);
    if (block.type !== 'tool_use') continue;
    if (typeof block.name !== 'string') throw invalid('a tool use without a name');
    if (block.name === answerTool?.name) {
      structured = unwrapAnswer(answerTool, block.input);
      if (structured === undefined) throw invalid('a tool use without the input asked for');
    } else {
      const id = typeof block.id === 'string' ? block.id : `toolu_${index}`;
      toolCalls.push({ id, name: block.name, arguments: JSON.stringify(block.input ?? {}) });
    }
  }
  const text = texts.join('');
  const content = structured ?? (text === '' && toolCalls.length > 0 ? null : text);
  const output: ChatOutput = {
    content,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    finishReason: toFinishReason(body.stop_reason, toolCalls.length > 0),
  };
  const written = (content?.length ?? 0) + toolCalls.reduce((sum, call) => sum + call.arguments.length, 0);
  return { ok: true, output, usage: readUsage(body.usage, lengthOfInput(input), written) };
}

export function toFinishReason(reason: unknown, hasToolCalls: boolean): FinishReason {
  switch (reason) {
    case 'max_tokens':
    case 'model_context_window_exceeded':
      return 'length';
    case 'refusal':
      return 'content_filter';
    case 'tool_use':
      // The answer tool alone is a finished answer.
      return hasToolCalls ? 'tool_calls' : 'stop';
    default:
      return 'stop';
  }
}

/** What the provider counted, tokens written to and read from its prompt cache among the input; else an estimate. */
export function readUsage(usage: unknown, inputLength: number, outputLength: number): TokenUsage {
  const count = (member: string) => {
    const value = isJsonObject(usage) ? usage[member] : undefined;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const inputTokens = count('input_tokens');
  const cached = (count('cache_creation_input_tokens') ?? 0) + (count('cache_read_input_tokens') ?? 0);
  return {
    inputTokens: inputTokens === undefined ? estimateTokens(inputLength) : inputTokens + cached,
    outputTokens: count('output_tokens') ?? estimateTokens(outputLength),
  };
}
