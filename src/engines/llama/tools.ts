// Tool calls of models whose chat template has them: tools as functions of llama.cpp, and the model's calls back. How
// a model writes a call is in its template; the arguments are generated under a grammar of their schema.
import { randomUUID } from 'node:crypto';
import type { ChatModelFunctions, ChatWrapper } from 'node-llama-cpp';
import type { Parameters, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { toGrammarSchema } from './grammar.ts';

export interface OfferedTools {
  readonly functions: ChatModelFunctions;
  /** Absent: as many as the model likes. */
  readonly maxCalls?: number;
  /** That of the model, or one that begins the answer with a call. */
  readonly wrapper: ChatWrapper;
}

/** The template names the list it is given `tools`, as all that know them do. */
export function knowsTools(chatTemplate: string | undefined): boolean {
  return chatTemplate !== undefined && /\btools\b/.test(chatTemplate);
}

/** Undefined where none are offered. Throws NOT_OFFERED when the model knows none, INVALID_PARAMETER, UNSUPPORTED_RETURN_TYPE. */
export function offerTools(
  { tools, toolChoice, responseFormat }: Parameters,
  wrapper: ChatWrapper,
  hasTemplate: boolean,
): OfferedTools | undefined {
  if (!tools?.length || toolChoice === 'none') return undefined;
  if (!hasTemplate) throw noTools();
  if (responseFormat !== undefined && responseFormat.type !== 'text') {
    throw new ServingError(
      'NOT_OFFERED',
      'Models on llama.cpp keep either a response format or call tools, not both. Leave one of them out.',
    );
  }
  const named = typeof toolChoice === 'object' ? toolChoice.name : undefined;
  const offered = named === undefined ? tools : tools.filter(({ name }) => name === named);
  if (offered.length === 0) {
    const known = tools.map(({ name }) => name).join(', ');
    throw new ServingError(
      'INVALID_PARAMETER',
      `The tool choice names "${named}", which is not among the tools (${known}).`,
    );
  }
  const functions: Record<string, ChatModelFunctions[string]> = {};
  for (const { name, description, parameters } of offered) {
    functions[name] = {
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined
        ? {}
        : { params: toGrammarSchema(parameters, `the parameters of "${name}"`) }),
    };
  }
  const isForced = named !== undefined || toolChoice === 'required';
  return isForced ? { functions, maxCalls: 1, wrapper: beginningWithCall(wrapper) } : { functions, wrapper };
}

export function noTools(): ServingError {
  return new ServingError(
    'NOT_OFFERED',
    'The chat template of this model knows no tools. Leave `tools` out, or ask a model that was trained with them.',
  );
}

export function toToolCalls(
  calls: readonly { readonly functionName: string; readonly params: unknown }[],
): ToolCall[] {
  return calls.map(({ functionName, params }) => ({
    id: `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`,
    name: functionName,
    arguments: JSON.stringify(params ?? {}),
  }));
}

/** The same template, whose answers begin with a call of a tool and with nothing else. */
function beginningWithCall(wrapper: ChatWrapper): ChatWrapper {
  const generateContextState: ChatWrapper['generateContextState'] = (options) => {
    const { contextText, stopGenerationTriggers, ignoreStartText } = wrapper.generateContextState(options);
    return {
      contextText,
      stopGenerationTriggers,
      ...(ignoreStartText ? { ignoreStartText } : {}),
      functionCall: { initiallyEngaged: true, disengageInitiallyEngaged: [] },
    };
  };
  return Object.assign(Object.create(wrapper) as ChatWrapper, { generateContextState });
}
