// Chat and completions on this machine: GGUF models under llama.cpp. One model and one context a runner; calls
// beyond its sequences wait their turn. Each answer stands alone: nothing of an earlier chat reaches the next.
import { isAbsolute, join } from 'node:path';
import type { Input, Output, StreamEvent } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { Batch, Engine, EngineContext, Runner } from '../engine.ts';
import { weightsOf } from '../weights/catalogue.ts';
import { isPresent, loadWeights } from '../weights/weights.ts';
import { type Generation, generate, type Prompt, refuseUnfit, renderPrompt } from './generate.ts';
import { Grammars } from './grammar.ts';
import { loadLlama, settingsOf } from './runtime.ts';
import { Sequences } from './sequences.ts';
import { offerTools } from './tools.ts';

export const llamaEngine: Engine = {
  kind: 'llama',
  open: async (target, context) => {
    const { modelVersion } = target;
    if (modelVersion === undefined) {
      throw new ServingError(
        'INTERNAL',
        `Served entity "${target.servedEntity}" has no model for the llama engine.`,
      );
    }
    const settings = settingsOf(modelVersion.options);
    const path = await ggufPath(modelVersion.source, context);
    return createRunner(
      target,
      await loadLlama(path, settings, context.log),
      settings.maxConcurrency,
      context.log,
    );
  },
};

/** Where the weights are; fetches them only where that is allowed without asking. Throws MODEL_NOT_AVAILABLE. */
async function ggufPath(source: string, context: EngineContext): Promise<string> {
  if (!source.startsWith('embedded:')) {
    if (isAbsolute(source) && source.endsWith('.gguf')) return source;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The source "${source}" is no model for llama.cpp; give the absolute path of a .gguf file or an embedded model.`,
    );
  }
  const id = source.slice('embedded:'.length);
  const weights = weightsOf(id);
  if (!isPresent(id, context.modelCacheDir) && !context.allowDownload(id)) {
    const megabytes = Math.round(weights.files.reduce((sum, { forms }) => sum + forms[0].bytes, 0) / 1e6);
    const packed =
      weights.kind === 'fetched'
        ? (weights.candidates[0] ?? []).reduce((sum, { tarballBytes }) => sum + tarballBytes, 0)
        : 0;
    const size = packed > 0 ? Math.round(packed / 1e6) : megabytes;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The language model "${id}" is not on this machine yet. Three ways out: fetch it with \`duckserve models pull ${id}\` ` +
        `(${size} MB, ${weights.licence}); create an endpoint of a provider such as OpenAI or Anthropic with your key; ` +
        'or create an endpoint of a local server such as Ollama (http://localhost:11434/v1).',
      { details: { id } },
    );
  }
  const directory = await loadWeights(id, context);
  const file = weights.files.find(({ name }) => name.endsWith('.gguf'));
  if (file === undefined) {
    throw new ServingError('MODEL_NOT_AVAILABLE', `The weights "${id}" hold no .gguf file for llama.cpp.`);
  }
  return join(directory, file.name);
}

function createRunner(
  target: Target,
  loaded: Awaited<ReturnType<typeof loadLlama>>,
  maxConcurrency: number,
  log: Log,
): Runner {
  const { llama, model, context, library } = loaded;
  const sequences = new Sequences(context);
  const grammars = new Grammars(llama);
  const wrapper = library.resolveChatWrapper(model, { warningLogs: false });
  let closing: Promise<void> | undefined;

  const begin = (batch: Batch): Prompt => {
    const [input] = batch.inputs;
    if (batch.task !== 'llm/v1/chat' && batch.task !== 'llm/v1/completions') {
      throw new ServingError(
        'WRONG_TASK',
        `Model "${target.model}" serves "${target.task}", not "${batch.task}".`,
      );
    }
    if (closing) throw new ServingError('INTERNAL', `Model "${target.model}" was asked after it was closed.`);
    throwIfAborted(batch.signal);
    if (input === undefined || batch.inputs.length > 1) {
      throw new ServingError('INTERNAL', `llama.cpp takes one input at a time, not ${batch.inputs.length}.`);
    }
    const tools = offerTools(batch.parameters, wrapper, loaded.hasTools);
    const prompt = renderPrompt(loaded, tools?.wrapper ?? wrapper, input, tools);
    refuseUnfit(prompt, batch.parameters, context.contextSize);
    return prompt;
  };
  const run = async (batch: Batch, prompt: Prompt, onText: (text: string) => void): Promise<Generation> => {
    const { signal, parameters } = batch;
    const grammar = await grammars.of(parameters.responseFormat);
    const lease = await sequences.acquire(prompt.tokens, signal);
    let isClean = false;
    try {
      const generation = await generate(loaded, wrapper, lease, prompt, parameters, grammar, signal, onText);
      isClean = true;
      const { keptTokens, usage } = generation;
      log.debug({ engine: 'llama', model: target.model, keptTokens, ...usage }, 'An answer was generated.');
      return generation;
    } catch (cause) {
      throwIfAborted(signal);
      throw toServingError(cause);
    } finally {
      lease.release(isClean);
    }
  };

  return {
    limits: {
      maxInputs: 1,
      maxTokens: context.contextSize,
      maxConcurrency,
      isAdaptive: false,
      isPadded: false,
      sharesPrefixes: true,
    },
    countTokens: (input: Input) => {
      try {
        return Math.max(1, renderPrompt(loaded, wrapper, input).tokens.length);
      } catch {
        return 1; // An input that cannot be rendered fails when it is asked, with its reason.
      }
    },
    invoke: async (batch) => {
      const pieces: string[] = [];
      const prompt = begin(batch);
      const { finishReason, usage, toolCalls } = await run(batch, prompt, (text) => pieces.push(text));
      const text = pieces.join('');
      const output: Output =
        prompt.history === null
          ? { text, finishReason }
          : toolCalls.length > 0
            ? { content: text === '' ? null : text, toolCalls, finishReason }
            : { content: text, finishReason };
      return { items: [{ ok: true, output, usage }] };
    },
    stream: (batch) =>
      streamOf(batch.signal, (signal, onText) => {
        const prompt = begin(batch);
        return run({ ...batch, signal }, prompt, onText);
      }),
    close: () => {
      closing ??= llama.dispose();
      return closing;
    },
  };
}

/** Callbacks as events. A reader that stops early stops the generation. */
async function* streamOf(
  outer: AbortSignal,
  start: (signal: AbortSignal, onText: (text: string) => void) => Promise<Generation>,
): AsyncGenerator<StreamEvent, void> {
  throwIfAborted(outer);
  const stop = new AbortController();
  const texts: string[] = [];
  let wake = () => {};
  let end: Generation | undefined;
  let failure: { readonly thrown: unknown } | undefined;
  const done = (async () =>
    start(AbortSignal.any([outer, stop.signal]), (text) => {
      texts.push(text);
      wake();
    }))()
    .then((value) => {
      end = value;
    })
    .catch((thrown: unknown) => {
      failure = { thrown };
    })
    .finally(() => wake());
  try {
    for (;;) {
      for (let text = texts.shift(); text !== undefined; text = texts.shift()) {
        if (text !== '') yield { type: 'delta', text };
      }
      if (failure) throw failure.thrown;
      if (end) {
        for (const [index, call] of end.toolCalls.entries()) yield { type: 'tool_call', index, ...call };
        return yield { type: 'end', finishReason: end.finishReason, usage: end.usage };
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (texts.length > 0 || end || failure) resolve();
      });
    }
  } finally {
    stop.abort();
    await done;
  }
}
