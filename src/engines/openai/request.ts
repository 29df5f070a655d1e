// Calls in the spelling of the OpenAI API. Not here: headers, addresses and answers.
import type { ChatMessage, Input, Parameters, ResponseFormat, Task, ToolChoice } from '#core/call.ts';
import { requireChat, requirePrompt, requireText } from '../text-input.ts';

export type RequestBody = Record<string, unknown>;

/** OpenAI's reasoning models refuse `max_tokens`; every other server may know nothing else. */
export const NEW_MAX_TOKENS = /^(o\d|gpt-5)/;

/** Body of a request for all inputs of a batch (chat and completions: the only one). */
export function toRequest(
  model: string,
  task: Task,
  inputs: readonly Input[],
  parameters: Parameters,
): RequestBody {
  if (task === 'llm/v1/embeddings') {
    return {
      ...parameters.extra,
      model,
      input: inputs.map(requireText),
      // A fifth of the bytes of decimal numbers, and quicker to read; servers that do not know it send numbers.
      encoding_format: 'base64',
      ...(parameters.dimensions === undefined ? {} : { dimensions: parameters.dimensions }),
    };
  }
  const question =
    task === 'llm/v1/chat'
      ? { messages: requireChat(inputs[0]).messages.map(toMessage) }
      : { prompt: requirePrompt(inputs[0]) };
  return { ...parameters.extra, model, ...question, ...toSampling(model, parameters) };
}

/** The same as a stream, with usage in its last event unless `extra.stream_options` says otherwise (null: left out). */
export function toStreamRequest(body: RequestBody): RequestBody {
  const { stream_options: asked = { include_usage: true }, ...rest } = body;
  return { ...rest, stream: true, ...(asked === null ? {} : { stream_options: asked }) };
}

function toSampling(model: string, parameters: Parameters): RequestBody {
  const { maxTokens, temperature, topP, topK, stop, seed, responseFormat, tools, toolChoice } = parameters;
  const body: RequestBody = {};
  if (maxTokens !== undefined)
    body[NEW_MAX_TOKENS.test(model) ? 'max_completion_tokens' : 'max_tokens'] = maxTokens;
  if (temperature !== undefined) body.temperature = temperature;
  if (topP !== undefined) body.top_p = topP;
  if (topK !== undefined) body.top_k = topK;
  if (stop !== undefined && stop.length > 0) body.stop = stop;
  if (seed !== undefined) body.seed = seed;
  if (responseFormat !== undefined) body.response_format = toResponseFormat(responseFormat);
  if (tools !== undefined && tools.length > 0) {
    body.tools = tools.map((tool) => ({ type: 'function', function: tool }));
    if (toolChoice !== undefined) body.tool_choice = toToolChoice(toolChoice);
  }
  return body;
}

function toMessage(message: ChatMessage): object {
  const { role, content, name, toolCalls, toolCallId } = message;
  return {
    role,
    content: typeof content === 'string' || content === null ? content : content.map(toPart),
    ...(name === undefined ? {} : { name }),
    ...(toolCalls === undefined || toolCalls.length === 0
      ? {}
      : {
          tool_calls: toolCalls.map((call) => ({
            id: call.id,
            type: 'function',
            function: { name: call.name, arguments: call.arguments },
          })),
        }),
    ...(toolCallId === undefined ? {} : { tool_call_id: toolCallId }),
  };
}

function toPart(part: Exclude<ChatMessage['content'], string | null>[number]): object {
  return part.type === 'text' ? part : { type: 'image_url', image_url: { url: part.url } };
}

function toResponseFormat(format: ResponseFormat): object {
  if (format.type !== 'json_schema') return { type: format.type };
  const { name, schema, strict } = format;
  return { type: 'json_schema', json_schema: { name, schema, ...(strict === undefined ? {} : { strict }) } };
}

function toToolChoice(choice: ToolChoice): string | object {
  return typeof choice === 'string' ? choice : { type: 'function', function: { name: choice.name } };
}
