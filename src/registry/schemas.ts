// What a specification from outside must look like: one validation for the command line, HTTP and SQL.
// Shape only, in camelCase (doors convert); what needs other entries of the registry is checked in endpoints.ts.
import { z } from 'zod';
import { TASKS, type Task } from '#core/call.ts';
import type { AiGateway, Route, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { type ExternalModelSpec, externalModelSchema } from './external-model-schema.ts';
import { gatewaySchema } from './gateway-schema.ts';
import { parseShape } from './parse.ts';
import { environmentSchema, ownFieldProblem, scalingSchema } from './scaling-schema.ts';

const NAME = /^[A-Za-z0-9_-]{1,63}$/;
const NAME_RULE = 'must be 1 to 63 letters, digits, - or _';
const MAX_ENTITIES = 10;

const name = z.string().regex(NAME, NAME_RULE);
/** Fields of other platforms that are kept as they were set; doors know which ones there are. */
const settings = z.record(z.string(), z.json());

const servedEntity = z
  .strictObject({
    name: name.optional(),
    externalModel: externalModelSchema.optional(),
    entityName: z.string().min(1).max(256).optional(),
    entityVersion: z.union([z.string().min(1).max(64), z.int().positive().transform(String)]).optional(),
    scaling: scalingSchema.optional(),
    environment: environmentSchema.optional(),
    settings: settings.optional(),
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
    const problem =
      entity.externalModel === undefined ? undefined : ownFieldProblem(entity as ServedEntitySpec);
    if (problem !== undefined) {
      context.addIssue({ code: 'custom', path: [problem.field], message: problem.message });
    }
  });

const route = z.strictObject({ servedEntityName: name, trafficPercentage: z.int().min(0).max(100) });
const servedEntities = z
  .array(servedEntity)
  .min(1)
  .max(MAX_ENTITIES, `must be at most ${MAX_ENTITIES} served entities`);
const routes = z.array(route).min(1).max(MAX_ENTITIES);
const description = z.string().max(4_096);
const tag = z.strictObject({ key: z.string().min(1).max(127), value: z.string().max(256) });
const tags = z
  .array(tag)
  .max(20)
  .superRefine((all, context) => {
    for (const [index, { key }] of all.entries()) {
      if (all.findIndex((other) => other.key === key) === index) continue;
      context.addIssue({ code: 'custom', path: [index, 'key'], message: 'is there twice', input: key });
    }
  });

const endpointSpec = z.strictObject({
  name,
  task: z.enum(TASKS).optional(),
  servedEntities,
  routes: routes.optional(),
  description: description.optional(),
  tags: tags.optional(),
  aiGateway: gatewaySchema.optional(),
  settings: settings.optional(),
});

const endpointUpdate = z.strictObject({
  servedEntities: servedEntities.optional(),
  routes: routes.optional(),
  description: description.optional(),
  tags: tags.optional(),
});

const tagChange = z.strictObject({
  add: z.array(tag).max(20).default([]),
  remove: z.array(z.string()).max(100).default([]),
});

export type Tag = Readonly<z.output<typeof tag>>;

/** A specification after its shape was checked; names of entities may still be missing. */
export interface EndpointSpec extends EndpointUpdate {
  readonly name: string;
  readonly task?: Task;
  readonly servedEntities: readonly ServedEntitySpec[];
  readonly aiGateway?: AiGateway;
  readonly settings?: JsonObject;
}
export interface EndpointUpdate {
  readonly servedEntities?: readonly ServedEntitySpec[];
  readonly routes?: readonly Route[];
  readonly description?: string;
  readonly tags?: readonly Tag[];
}
/** External models may still hold keys in the clear. */
export type ServedEntitySpec = Omit<ServedEntity, 'name' | 'id' | 'externalModel'> & {
  readonly name?: string;
  readonly id?: string;
  readonly externalModel?: ExternalModelSpec;
};

export function parseEndpointSpec(spec: unknown): EndpointSpec {
  const parsed = parseShape(endpointSpec, spec, 'The endpoint') as EndpointSpec;
  const { aiGateway, ...rest } = parsed;
  return aiGateway === undefined || Object.keys(aiGateway).length === 0 ? rest : parsed;
}

export function parseEndpointUpdate(spec: unknown): EndpointUpdate {
  return parseShape(endpointUpdate, spec, 'The endpoint update') as EndpointUpdate;
}

/** The tags after a change; a key that is added again has the new value. */
export function changeTags(before: readonly Tag[], change: unknown): readonly Tag[] {
  const { add, remove } = parseShape(tagChange, change, 'The change of tags');
  const kept = before.filter(({ key }) => !remove.includes(key) && !add.some((added) => added.key === key));
  return parseShape(z.strictObject({ tags }), { tags: [...kept, ...add] }, 'The list of tags').tags;
}

/** Names of endpoints, served entities and models. */
export function parseName(value: string, what: string): string {
  if (!NAME.test(value))
    throw new ServingError('INVALID_PARAMETER', `${what} ${JSON.stringify(value)} ${NAME_RULE}.`);
  return value;
}
