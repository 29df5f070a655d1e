// Permissions of endpoints in the words of Databricks' permissions API. Endpoints go by their id here.
import type { Hono } from 'hono';
import { z } from 'zod';
import type { Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { PERMISSION_LEVELS, type PermissionLevel, requireScope } from '#governance/access.ts';
import type { Identity } from '#governance/identity/identity.ts';
import type { PermissionEntry, PermissionHolder } from '#governance/identity/records.ts';
import { parseWith, showValue } from './errors.ts';
import type { IdentityDeps } from './identity-routes.ts';
import { type HttpContext, type HttpEnv, readJsonBody } from './request.ts';

const PATH = '/api/2.0/permissions/serving-endpoints/:id';
const HOLDERS: Readonly<Record<'user_name' | 'group_name' | 'service_principal_name', PermissionHolder>> = {
  user_name: 'user',
  group_name: 'group',
  service_principal_name: 'service_principal',
};
const MEANINGS: Readonly<Record<PermissionLevel, string>> = {
  CAN_VIEW: 'Can see the endpoint',
  CAN_QUERY: 'Can see and query the endpoint',
  CAN_MANAGE: 'Can see, query, change and delete the endpoint and its permissions',
};

const body = z.object({
  access_control_list: z.array(
    z.object({
      user_name: z.string().nullish(),
      group_name: z.string().nullish(),
      service_principal_name: z.string().nullish(),
      permission_level: z.enum(PERMISSION_LEVELS),
    }),
  ),
});

export function addPermissionRoutes(app: Hono<HttpEnv>, deps: IdentityDeps): void {
  const { identity } = deps;
  const find = (c: HttpContext) => findManaged(deps, c.get('principal'), c.req.param('id') ?? '');
  app.get(PATH, (c) => c.json(formatPermissions(identity, find(c))));
  app.put(PATH, async (c) => {
    const endpoint = find(c);
    await identity.setPermissions(endpoint, readEntries(await readJsonBody(c)));
    return c.json(formatPermissions(identity, endpoint));
  });
  app.patch(PATH, async (c) => {
    const endpoint = find(c);
    await identity.patchPermissions(endpoint, readEntries(await readJsonBody(c)));
    return c.json(formatPermissions(identity, endpoint));
  });
  app.get(`${PATH}/permissionLevels`, (c) => {
    find(c);
    const levels = PERMISSION_LEVELS.map((level) => ({
      permission_level: level,
      description: MEANINGS[level],
    }));
    return c.json({ permission_levels: levels });
  });
}

/** Who may not see an endpoint cannot tell it from one that does not exist. */
function findManaged({ identity, registry }: IdentityDeps, principal: Principal, id: string): Endpoint {
  const endpoint = registry.listEndpoints().find((candidate) => candidate.id === id);
  if (endpoint === undefined || identity.levelOf(principal, endpoint) === undefined) {
    throw new ServingError(
      'ENDPOINT_NOT_FOUND',
      `There is no endpoint with the id ${showValue(id)}. Permissions go by the field 'id' of GET /api/2.0/serving-endpoints/{name}, not by the name.`,
    );
  }
  if (endpoint.isEmbedded) requireScope(principal, 'manage', 'to see permissions');
  else identity.authorize(principal, endpoint, 'manage');
  return endpoint;
}

function readEntries(json: JsonObject): readonly PermissionEntry[] {
  return parseWith(body, json).access_control_list.map((item, index) => {
    const named = Object.entries(HOLDERS).flatMap(([field, kind]) => {
      const name = item[field as keyof typeof HOLDERS];
      return name === undefined || name === null ? [] : [{ kind, name, level: item.permission_level }];
    });
    const [entry] = named;
    if (entry !== undefined && named.length === 1) return entry;
    throw new ServingError(
      'INVALID_PARAMETER',
      `'access_control_list[${index}]' must have exactly one of ${Object.keys(HOLDERS).join(', ')}; got ${showValue(item)}.`,
    );
  });
}

function formatPermissions(identity: Identity, endpoint: Endpoint): JsonObject {
  return {
    object_id: `/serving-endpoints/${endpoint.id}`,
    object_type: 'serving-endpoint',
    access_control_list: identity.describePermissions(endpoint).map(({ kind, name, level, isFixed }) => ({
      [`${kind}_name`]: name,
      ...(kind === 'group' ? {} : { display_name: name }),
      all_permissions: [
        {
          permission_level: level,
          inherited: isFixed,
          ...(isFixed ? { inherited_from_object: ['/serving-endpoints/'] } : {}),
        },
      ],
    })),
  };
}
