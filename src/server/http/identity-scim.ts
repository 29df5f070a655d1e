// Principals and groups as SCIM 2.0 shows them, as far as Databricks' clients read it. They are made with tokens
// or come with a JWT, so nothing is created or changed here.
import type { Hono } from 'hono';
import type { Principal } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { requireAdmin } from '#governance/access.ts';
import type { Identity } from '#governance/identity/identity.ts';
import type { GroupRecord } from '#governance/identity/records.ts';
import { showValue } from './errors.ts';
import type { HttpContext, HttpEnv } from './request.ts';

const BASE = '/api/2.0/preview/scim/v2';
const CORE = 'urn:ietf:params:scim:schemas:core:2.0';
const MESSAGES = 'urn:ietf:params:scim:api:messages:2.0';
const MOST_RESULTS = 10_000;

type Listed = Pick<Principal, 'id' | 'name' | 'groups' | 'kind'>;

export function addScimRoutes(app: Hono<HttpEnv>, identity: Identity): void {
  app.get(`${BASE}/Me`, (c) => c.json(formatPrincipal(identity, c.get('principal'))));

  const offer = (resource: string, nameField: string, list: () => readonly JsonObject[]) => {
    app.get(`${BASE}/${resource}`, (c) => {
      requireAdmin(c.get('principal'), `list ${resource}`);
      return c.json(page(c, nameField, list()));
    });
    app.get(`${BASE}/${resource}/:id`, (c) => {
      requireAdmin(c.get('principal'), `see ${resource}`);
      const id = c.req.param('id');
      const found = list().find((member) => member.id === id);
      if (found !== undefined) return c.json(found);
      throw new ServingError('NOT_FOUND', `There is none of ${resource} with the id ${showValue(id)}.`);
    });
  };
  const principals = (kind: Principal['kind']) => () =>
    identity.listPrincipals(kind).map((record) => formatPrincipal(identity, record));
  offer('Users', 'userName', principals('user'));
  offer('ServicePrincipals', 'applicationId', principals('service_principal'));
  offer('Groups', 'displayName', () => identity.listGroups().map((group) => formatGroup(identity, group)));
}

function formatPrincipal(identity: Identity, { id, name, kind, groups = [] }: Listed): JsonObject {
  const ids = new Map(identity.listGroups().map((group) => [group.name, group.id]));
  const shared = {
    id,
    displayName: name,
    active: true,
    groups: groups.map((group) => ({ display: group, type: 'direct', value: ids.get(group) ?? group })),
  };
  if (kind === 'service_principal') {
    // `userName` for those who ask who they are and expect a user.
    return { schemas: [`${CORE}:ServicePrincipal`], ...shared, applicationId: name, userName: name };
  }
  const emails = name.includes('@') ? [{ type: 'work', value: name, primary: true }] : [];
  return { schemas: [`${CORE}:User`], ...shared, userName: name, emails };
}

function formatGroup(identity: Identity, { id, name }: GroupRecord): JsonObject {
  const members = identity.listPrincipals().filter(({ groups }) => groups.includes(name));
  return {
    schemas: [`${CORE}:Group`],
    id,
    displayName: name,
    members: members.map((member) => ({ display: member.name, value: member.id })),
  };
}

/** `startIndex` (from 1), `count` and `filter` by name; clients ask on until a page is empty. */
function page(c: HttpContext, nameField: string, all: readonly JsonObject[]): JsonObject {
  const wanted = nameWanted(c.req.query('filter'), nameField);
  const matching = wanted === undefined ? all : all.filter((member) => member[nameField] === wanted);
  const startIndex = Math.max(1, readNumber(c, 'startIndex') ?? 1);
  const count = Math.min(readNumber(c, 'count') ?? 100, MOST_RESULTS);
  const Resources = matching.slice(startIndex - 1, startIndex - 1 + count);
  return {
    schemas: [`${MESSAGES}:ListResponse`],
    totalResults: matching.length,
    startIndex,
    itemsPerPage: Resources.length,
    Resources,
  };
}

function nameWanted(filter: string | undefined, nameField: string): string | undefined {
  if (filter === undefined || filter === '') return undefined;
  const [, field = '', name] = /^\s*(\w+)\s+eq\s+"([^"]*)"\s*$/i.exec(filter) ?? [];
  if (
    name !== undefined &&
    [nameField, 'displayName'].some((known) => known.toLowerCase() === field.toLowerCase())
  ) {
    return name;
  }
  throw new ServingError(
    'NOT_OFFERED',
    `The filter ${showValue(filter)} is not offered: it takes ${nameField} eq "NAME".`,
  );
}

function readNumber(c: HttpContext, field: string): number | undefined {
  const text = c.req.query(field);
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new ServingError('INVALID_PARAMETER', `'${field}' is ${showValue(text)}; it must be a whole number.`);
}
