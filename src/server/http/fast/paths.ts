// Which requests may take the short way, as far as their path says it: the OpenAI interfaces that carry chat and
// completions, and invocations of an endpoint by name.
import type { Task } from '#core/call.ts';
import { MLFLOW_BASES, OPENAI_BASES } from '../openai-routes.ts';

export interface FastPath {
  /** Undefined: the task of the endpoint. */
  readonly task?: Task;
  /** Name of the interface in the usage tables. */
  readonly apiType: string;
  /** The endpoint, where the path names it. */
  readonly endpoint?: string;
  /** The route as metrics call it. */
  readonly route: string;
}

const FIXED = new Map<string, FastPath>();
const offer = (base: string, api: string, path: string, task: Task) =>
  FIXED.set(`${base}${path}`, { task, apiType: `${api}${path}`, route: `${base}${path}` });
for (const base of OPENAI_BASES) {
  offer(base, 'openai/v1', '/chat/completions', 'llm/v1/chat');
  offer(base, 'openai/v1', '/completions', 'llm/v1/completions');
  offer(base, 'openai/v1', '/embeddings', 'llm/v1/embeddings');
}
for (const base of MLFLOW_BASES) {
  offer(base, 'mlflow/v1', '/chat/completions', 'llm/v1/chat');
  offer(base, 'mlflow/v1', '/embeddings', 'llm/v1/embeddings');
}

const PREFIX = '/serving-endpoints/';
const SUFFIX = '/invocations';
/** As the routes call invocations of endpoints of these tasks. */
export const INVOCATION_TYPES: Readonly<Partial<Record<Task, string>>> = {
  'llm/v1/chat': 'mlflow/v1/chat/completions',
  'llm/v1/completions': 'mlflow/v1/completions',
  'llm/v1/embeddings': 'mlflow/v1/embeddings',
};

/** `url` as it stands in the request line; with a query it takes the long way. */
export function fastPathOf(url: string): FastPath | undefined {
  const fixed = FIXED.get(url);
  if (fixed || !url.startsWith(PREFIX) || !url.endsWith(SUFFIX)) return fixed;
  const endpoint = url.slice(PREFIX.length, -SUFFIX.length);
  if (!/^[\w.-]+$/.test(endpoint)) return undefined;
  return { apiType: 'mlflow/invocations', endpoint, route: '/serving-endpoints/:name/invocations' };
}
