// Which endpoint answers when a function is given none. Settings decide; without one, what is there decides,
// and nothing is ever downloaded or sent to a provider because of a guess.
import { MINILM_ENDPOINT, TINYLLAMA_ENDPOINT, TINYLLAMA_ID } from '#core/embedded-models.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

export interface DefaultsOptions {
  readonly getSetting: (name: string) => string | undefined;
  readonly listEndpoints: () => readonly Endpoint[];
  /** Are the weights of the embedded chat model on this machine? */
  readonly hasEmbeddedChat: () => boolean;
}

export type DefaultUse = 'chat' | 'embedding' | 'classify';

export function createDefaults(options: DefaultsOptions): (use: DefaultUse) => string {
  const ownChat = () => {
    const setting = options.getSetting('default_chat_endpoint');
    if (setting) return setting;
    const own = options
      .listEndpoints()
      .filter((endpoint) => !endpoint.isEmbedded && endpoint.task === 'llm/v1/chat');
    return own.length === 1 ? own[0]?.name : undefined;
  };
  const embedding = () => options.getSetting('default_embedding_endpoint') ?? MINILM_ENDPOINT;
  return (use) => {
    if (use === 'embedding') return embedding();
    // A small local chat model takes seconds a row; labels are then better picked by similarity.
    if (use === 'classify')
      return options.getSetting('default_classify_endpoint') ?? ownChat() ?? embedding();
    const chat = ownChat();
    if (chat) return chat;
    if (options.hasEmbeddedChat()) return TINYLLAMA_ENDPOINT;
    throw new ServingError('MODEL_NOT_AVAILABLE', NO_CHAT);
  };
}

const NO_CHAT =
  'There is no chat endpoint to ask. Three ways out: ' +
  `(1) fetch the embedded model, 319 MB: duckserve models pull ${TINYLLAMA_ID}; ` +
  '(2) use a provider: duckserve endpoints create my-llm --task llm/v1/chat --provider openai --model gpt-4o-mini --api-key-env OPENAI_API_KEY; ' +
  '(3) use a local server: the same with --base-url http://127.0.0.1:11434/v1 --model llama3.2. ' +
  'With several chat endpoints, name one: duckserve settings set default_chat_endpoint NAME, or the argument endpoint => NAME.';
