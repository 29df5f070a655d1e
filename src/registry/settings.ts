// Settings of a data directory: which endpoint answers where a statement names none.
import type { Task } from '#core/call.ts';
import { MINILM_ENDPOINT } from '#core/embedded-models.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

/** Name and the tasks its endpoint may have. Classifying works by chat, or by nearness of embeddings. */
const SETTINGS = {
  default_chat_endpoint: ['llm/v1/chat'],
  default_embedding_endpoint: ['llm/v1/embeddings'],
  default_classify_endpoint: ['llm/v1/chat', 'llm/v1/embeddings'],
} as const satisfies Record<string, readonly Task[]>;

export type SettingName = keyof typeof SETTINGS;

export const SETTING_DEFAULTS: Readonly<Record<SettingName, string | undefined>> = {
  default_chat_endpoint: undefined,
  default_embedding_endpoint: MINILM_ENDPOINT,
  default_classify_endpoint: undefined,
};

export function settingName(name: string): SettingName {
  if (Object.hasOwn(SETTINGS, name)) return name as SettingName;
  const names = Object.keys(SETTINGS).join(', ');
  throw new ServingError('INVALID_PARAMETER', `There is no setting '${name}'. There are: ${names}.`);
}

/** The value to keep. Throws WRONG_TASK. */
export function parseSetting(name: SettingName, endpoint: Endpoint): string {
  const tasks: readonly Task[] = SETTINGS[name];
  if (tasks.includes(endpoint.task)) return endpoint.name;
  throw new ServingError(
    'WRONG_TASK',
    `${name} needs an endpoint for ${tasks.join(' or ')}; '${endpoint.name}' serves ${endpoint.task}.`,
  );
}
