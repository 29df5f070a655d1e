// The endpoints that the clients ask, made over HTTP as an administrator would.
// Not here: endpoints that clients make themselves.
import type { Json, JsonObject } from '#core/json.ts';

/** Each has an endpoint `limited-NAME` of its own that admits one call a minute of each user. */
export const CLIENTS = [
  'openai-node',
  'openai-python',
  'anthropic-node',
  'anthropic-python',
  'vercel-ai',
  'langchain',
  'requests',
] as const;

/** The group of those who may query. */
export const GROUP = 'clients';

export class Administrator {
  readonly #url: string;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  async ask(method: string, path: string, body?: Json): Promise<JsonObject> {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text) as JsonObject;
  }

  async create(name: string, externalModel: JsonObject, gateway?: JsonObject): Promise<void> {
    await this.ask('POST', '/api/2.0/serving-endpoints', {
      name,
      config: { served_entities: [{ external_model: externalModel }] },
      ...(gateway && { ai_gateway: gateway }),
    });
  }

  async letGroupQuery(name: string): Promise<void> {
    const { id } = await this.ask('GET', `/api/2.0/serving-endpoints/${name}`);
    await this.ask('PATCH', `/api/2.0/permissions/serving-endpoints/${String(id)}`, {
      access_control_list: [{ group_name: GROUP, permission_level: 'CAN_QUERY' }],
    });
  }
}

/** Addresses of two providers; the second cuts every connection, a stream in its middle. */
export interface Providers {
  readonly stubUrl: string;
  readonly cuttingUrl: string;
}

export async function createEndpoints(administrator: Administrator, providers: Providers): Promise<void> {
  const { stubUrl, cuttingUrl } = providers;
  const openai = (task: string, name: string, at = stubUrl): JsonObject => ({
    name,
    provider: 'openai',
    task,
    openai_config: { openai_api_base: `${at}/v1`, openai_api_key_plaintext: 'key-of-the-provider' },
  });
  const chat = openai('llm/v1/chat', 'stub-chat');
  const claude: JsonObject = {
    name: 'stub-claude',
    provider: 'anthropic',
    task: 'llm/v1/chat',
    anthropic_config: { anthropic_api_base: stubUrl, anthropic_api_key_plaintext: 'key-of-the-provider' },
  };
  await administrator.create('chat', chat);
  await administrator.create('claude', claude);
  await administrator.create('completions', openai('llm/v1/completions', 'stub-completions'));
  await administrator.create('vectors', openai('llm/v1/embeddings', 'stub-vectors'));
  await administrator.create('cut', openai('llm/v1/chat', 'stub-cut', cuttingUrl));
  await administrator.create('private', chat);
  await administrator.create('guarded', chat, { guardrails: { input: { pii: { behavior: 'BLOCK' } } } });
  const open = ['chat', 'claude', 'completions', 'vectors', 'guarded', 'cut', 'penguins'];
  for (const client of CLIENTS) {
    await administrator.create(`limited-${client}`, chat, {
      rate_limits: [{ calls: 1, key: 'user', renewal_period: 'minute' }],
    });
    open.push(`limited-${client}`);
  }
  for (const name of open) await administrator.letGroupQuery(name);
}
