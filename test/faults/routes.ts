// Every route of the server as its own description lists it, with a body that would be accepted of somebody who may.
import type { JsonObject } from '#core/json.ts';
import type { FaultServer } from './support.ts';

export interface Route {
  readonly method: string;
  /** With places such as `{name}`. */
  readonly path: string;
  /** JSON schema of the body, where it is described. */
  readonly schema: JsonObject | undefined;
}

export async function listRoutes(server: FaultServer, headers?: Record<string, string>): Promise<Route[]> {
  const { body } = await server.ask('GET', '/openapi.json', undefined, headers);
  const paths = body.paths as Record<string, Record<string, { requestBody?: { content: JsonObject } }>>;
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const json = operation.requestBody?.content['application/json'] as { schema: JsonObject } | undefined;
      return { method: method.toUpperCase(), path, schema: json?.schema };
    }),
  );
}

export interface Places {
  readonly name: string;
  readonly id: string;
  readonly entity: string;
  /** A provider to answer. */
  readonly baseUrl: string;
  readonly principal: string;
}

const ID_PATHS = /permissions|token-management|scim/;

export function fillPath(path: string, { name, id, entity }: Places): string {
  // It names no endpoint otherwise.
  if (path === '/invocations') return `${path}?endpoint=${name}`;
  return path
    .replace('{name}', name)
    .replace('{id}', ID_PATHS.test(path) ? id : name)
    .replace(/\{(entity|version)\}/, entity);
}

/** What a well-meaning caller would send; undefined where the route takes none. */
export function bodyOf({ method, path }: Route, places: Places): JsonObject | undefined {
  if (method === 'GET' || method === 'DELETE') return undefined;
  const row = BODIES.find(([pattern]) => pattern.test(path));
  return row?.[1](places) ?? {};
}

const messages = [{ role: 'user', content: 'one two three' }];
const config = ({ baseUrl }: Places): JsonObject => ({
  served_entities: [
    {
      external_model: {
        name: 'stub',
        provider: 'openai',
        task: 'llm/v1/chat',
        openai_config: { openai_api_base: baseUrl },
      },
    },
  ],
});
const BODIES: readonly (readonly [RegExp, (places: Places) => JsonObject])[] = [
  [/\/messages/, ({ name }) => ({ model: name, max_tokens: 20, messages })],
  [/chat\/completions$/, ({ name }) => ({ model: name, messages })],
  [/\/completions$/, ({ name }) => ({ model: name, prompt: 'one two' })],
  [/(embeddings|responses)$/, ({ name }) => ({ model: name, input: 'one two' })],
  [/\/infer$/, () => ({ inputs: [{ name: 'x', shape: [1], datatype: 'BYTES', data: ['a'] }] })],
  [/invocations$/, () => ({ messages })],
  [/serving-endpoints\/\{name\}\/config$/, config],
  [/\/ai-gateway$/, () => ({ usage_tracking_config: { enabled: true } })],
  [/\/rate-limits$/, () => ({ rate_limits: [{ key: 'user', calls: 90, renewal_period: 'minute' }] })],
  [/\/tags$/, () => ({ add_tags: [{ key: 'mine', value: 'now' }] })],
  [/\/notifications$/, () => ({ email_notifications: { on_update_success: ['a@example.org'] } })],
  [/api\/2.0\/serving-endpoints$/, (places) => ({ name: `${places.name}-2`, config: config(places) })],
  [
    /\/permissions\//,
    ({ principal }) => ({
      access_control_list: [{ user_name: principal, permission_level: 'CAN_MANAGE' }],
    }),
  ],
  [/sql\/statements$/, () => ({ statement: 'SELECT 42 AS answer' })],
  [/token\/create$/, () => ({ comment: 'a comment', lifetime_seconds: 60 })],
  [/token\/delete$/, ({ id }) => ({ token_id: id })],
  [
    /duckserve\/limits$/,
    () => ({ rate_limits: [{ key: 'endpoint', calls: 1_000_000, renewal_period: 'minute' }] }),
  ],
];
