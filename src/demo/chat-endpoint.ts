// Which chat model the demo asks: a provider or a local server when its variable is set, else the embedded one.
import { LOCAL_OWNER } from '#core/call.ts';
import { TINYLLAMA_ENDPOINT, TINYLLAMA_ID } from '#core/embedded-models.ts';
import type { ExternalModel } from '#core/endpoint.ts';
import { loadWeights } from '#engines/weights/weights.ts';
import type { App } from '../app.ts';

export const DEMO_ENDPOINT = 'demo-chat';

export interface DemoChat {
  readonly endpoint: string;
  readonly description: string;
}

/** Creates the endpoint `demo-chat`, or fetches the embedded model (319 MB, once). */
export async function prepareChat(
  app: App,
  env: NodeJS.ProcessEnv,
  fetchOptions: {
    readonly notify: (line: string) => void;
    readonly onDownloadProgress: (id: string, done: number, total: number) => void;
  },
): Promise<DemoChat> {
  const external = externalModel(env);
  if (external) {
    if (app.registry.listEndpoints().some((endpoint) => endpoint.name === DEMO_ENDPOINT))
      await app.registry.deleteEndpoint(DEMO_ENDPOINT);
    await app.registry.createEndpoint(
      {
        name: DEMO_ENDPOINT,
        servedEntities: [{ externalModel: external }],
        description: 'Made by duckserve demo.',
      },
      LOCAL_OWNER,
    );
    return {
      endpoint: DEMO_ENDPOINT,
      description: `${external.name} at ${external.baseUrl ?? 'the provider'}`,
    };
  }
  await loadWeights(TINYLLAMA_ID, {
    ...fetchOptions,
    modelCacheDir: app.modelCacheDir,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    resolveSecret: (reference) => reference,
    allowDownload: () => true,
  });
  return {
    endpoint: TINYLLAMA_ENDPOINT,
    description:
      'TinyLlama 1.1B at two bits a weight, on this machine: small, so read its answers with a smile',
  };
}

function externalModel(env: NodeJS.ProcessEnv): ExternalModel | undefined {
  const task = 'llm/v1/chat';
  if (env.OPENAI_API_KEY || env.OPENAI_BASE_URL) {
    return {
      name: env.DUCKSERVE_DEMO_MODEL ?? 'gpt-4o-mini',
      provider: 'openai',
      task,
      ...(env.OPENAI_BASE_URL ? { baseUrl: env.OPENAI_BASE_URL } : {}),
      ...(env.OPENAI_API_KEY ? { apiKey: '{{env/OPENAI_API_KEY}}' } : {}),
    };
  }
  if (env.ANTHROPIC_API_KEY) {
    return {
      name: env.DUCKSERVE_DEMO_MODEL ?? 'claude-haiku-4-5',
      provider: 'anthropic',
      task,
      apiKey: '{{env/ANTHROPIC_API_KEY}}',
    };
  }
  if (env.OLLAMA_HOST) {
    const host = /^https?:/.test(env.OLLAMA_HOST) ? env.OLLAMA_HOST : `http://${env.OLLAMA_HOST}`;
    return {
      name: env.DUCKSERVE_DEMO_MODEL ?? 'llama3.2',
      provider: 'openai',
      task,
      baseUrl: `${host.replace(/\/+$/, '')}/v1`,
    };
  }
  return undefined;
}
