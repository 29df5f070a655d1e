// What a specification from outside must look like: one validation for the command line, HTTP and SQL.
// Shape only, in camelCase (doors convert); what needs other entries of the registry is checked in endpoints.ts.
import { z } from 'zod';
import { TASKS, type Task } from '#core/call.ts';
import { PROVIDERS, type Route, type ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

const NAME = /^[A-Za-z0-9_-]{1,63}$/;
const NAME_RULE = 'must be 1 to 63 letters, digits, - or _';
const REFERENCE = /^\{\{\s*(?:env\/[A-Za-z_][A-Za-z0-9_]*|secrets\/[A-Za-z0-9_.-]+\/[A-Za-z0-9_.-]+)\s*\}\}$/;
const EXTERNAL_TASKS = ['llm/v1/chat', 'llm/v1/completions', 'llm/v1/embeddings'] as const;

const name = z.string().regex(NAME, NAME_RULE);
const count = z.int().positive();
const dollars = z.number().nonnegative();

const baseUrl = z.string().superRefine((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    context.addIssue({ code: 'custom', message: 'must be a URL that begins with https:// or http://' });
  } else if (url.username !== '' || url.password !== '') {
    context.addIssue({
      code: 'custom',
      message: 'must not hold a user name or password; use apiKey with {{env/NAME}} or {{secrets/scope/key}}',
      params: { isSecret: true },
    });
  }
});

const apiKey = z.string().superRefine((text, context) => {
  if (!REFERENCE.test(text)) {
    context.addIssue({
      code: 'custom',
      message: 'must be a reference, {{env/NAME}} or {{secrets/scope/key}}; keys are not kept in plain text',
      params: { isSecret: true },
    });
  }
});

const externalModel = z
  .strictObject({
    name: z.string().min(1).max(256),
    provider: z.enum(PROVIDERS),
    task: z.enum(EXTERNAL_TASKS),
    baseUrl: baseUrl.optional(),
    apiKey: apiKey.optional(),
    organization: z.string().min(1).optional(),
    apiType: z.enum(['openai', 'azure']).optional(),
    apiVersion: z.string().min(1).optional(),
    maxConcurrency: count.max(10_000).optional(),
    timeoutMs: count.max(24 * 60 * 60 * 1_000).optional(),
    price: z.strictObject({ inputPerMillion: dollars, outputPerMillion: dollars }).optional(),
  })
  .superRefine((model, context) => {
    if (model.provider === 'anthropic' && model.task !== 'llm/v1/chat') {
      context.addIssue({
        code: 'custom',
        path: ['task'],
        message: 'must be llm/v1/chat; anthropic offers nothing else',
      });
    }
    if (model.apiType === 'azure' && model.baseUrl === undefined) {
      context.addIssue({
        code: 'custom',
        path: ['baseUrl'],
        message: 'is needed with apiType azure: the URL of the resource',
      });
    }
  });

const servedEntity = z
  .strictObject({
    name: name.optional(),
    externalModel: externalModel.optional(),
    entityName: z.string().min(1).optional(),
    entityVersion: z.union([z.string().min(1), z.int().positive().transform(String)]).optional(),
  })
  .superRefine((entity, context) => {
    if ((entity.externalModel === undefined) === (entity.entityName === undefined)) {
      context.addIssue({
        code: 'custom',
        message: 'needs either externalModel or entityName (a registered model), not both',
      });
    }
    if (entity.externalModel !== undefined && entity.entityVersion !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['entityVersion'],
        message: 'does not go with externalModel',
      });
    }
  });

const route = z.strictObject({ servedEntityName: name, trafficPercentage: z.int().min(0).max(100) });
const servedEntities = z.array(servedEntity).min(1).max(10);
const routes = z.array(route).min(1).max(10);
const description = z.string().max(4_096);
const tags = z.array(z.strictObject({ key: z.string().min(1).max(127), value: z.string().max(256) })).max(20);

const endpointSpec = z.strictObject({
  name,
  task: z.enum(TASKS).optional(),
  servedEntities,
  routes: routes.optional(),
  description: description.optional(),
  tags: tags.optional(),
});

const endpointUpdate = z.strictObject({
  servedEntities: servedEntities.optional(),
  routes: routes.optional(),
  description: description.optional(),
  tags: tags.optional(),
});

/** A specification after its shape was checked; names of entities may still be missing. */
export interface EndpointSpec {
  readonly name: string;
  readonly task?: Task | undefined;
  readonly servedEntities: readonly ServedEntitySpec[];
  readonly routes?: readonly Route[] | undefined;
  readonly description?: string | undefined;
  readonly tags?: readonly { readonly key: string; readonly value: string }[] | undefined;
}
export type EndpointUpdate = Partial<Omit<EndpointSpec, 'name' | 'task'>>;
export type ServedEntitySpec = Omit<ServedEntity, 'name'> & { readonly name?: string };

export function parseEndpointSpec(spec: unknown): EndpointSpec {
  return withoutUndefined(parse(endpointSpec, spec, 'The endpoint')) as EndpointSpec;
}

export function parseEndpointUpdate(spec: unknown): EndpointUpdate {
  return withoutUndefined(parse(endpointUpdate, spec, 'The endpoint update')) as EndpointUpdate;
}

/** Names of endpoints, served entities and models. */
export function parseName(value: string, what: string): string {
  if (!NAME.test(value))
    throw new ServingError('INVALID_PARAMETER', `${what} ${JSON.stringify(value)} ${NAME_RULE}.`);
  return value;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const lines = result.error.issues.map(describe);
  throw new ServingError('INVALID_PARAMETER', `${what} is not valid: ${lines.join('; ')}.`, {
    details: {
      violations: result.error.issues.map((issue) => ({
        field: issue.path.join('.'),
        description: issue.message,
      })),
    },
  });
}

function describe(issue: z.core.$ZodIssue): string {
  const field = issue.path.length === 0 ? 'it' : issue.path.join('.');
  // A whole object or a secret is not repeated to the caller.
  const isSecret =
    issue.path.includes('apiKey') || (issue.code === 'custom' && issue.params?.isSecret === true);
  const isPlain = ['string', 'number', 'boolean'].includes(typeof issue.input);
  const shown = isPlain && !isSecret ? ` (${JSON.stringify(issue.input)})` : '';
  return `${field}${shown}: ${issue.message}`;
}

function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => [key, withoutUndefined(member)]),
  );
}
