// The control plane, /api/2.0/serving-endpoints: who may, what is asked, what is answered. One line of each a
// route; the bodies are in endpoint-body.ts, the answers in endpoint-view.ts.
import type { Hono } from 'hono';
import { z } from 'zod';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { UsageRow } from '#core/stores.ts';
import { entityId } from '#registry/targets.ts';
import type { HttpDeps } from '../deps.ts';
import { type HttpContext, type HttpEnv, readJsonBody } from '../request.ts';
import { requireAction, requireCreate } from './access.ts';
import { readBody } from './body.ts';
import {
  notificationsBody,
  notOffered,
  tagsBody,
  toConfigUpdate,
  toEndpointSpec,
  toTag,
} from './endpoint-body.ts';
import { formatEndpointOpenapi } from './endpoint-openapi.ts';
import { formatEndpoint, formatListItem, formatTag, type ViewFacts } from './endpoint-view.ts';
import {
  formatGateway,
  formatRateLimit,
  gatewayBody,
  legacyRateLimits,
  toGateway,
  toRateLimit,
} from './gateway-fields.ts';
import { inWireWords } from './wire-names.ts';

const BASE = '/api/2.0/serving-endpoints';
const rateLimitsBody = z.strictObject({ rate_limits: legacyRateLimits.nullish() });

export function addControlRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  const { registry } = deps;
  deps.serving.onUsage((row) => noteFailure(deps, row));

  app.get(BASE, (c) => {
    const endpoints = deps.identity.visible(c.get('principal'), registry.listEndpoints());
    return c.json({
      endpoints: endpoints.map((endpoint) => formatListItem(endpoint, factsOf(c, deps, endpoint))),
    });
  });
  app.post(BASE, async (c) => {
    const spec = toEndpointSpec(await readJsonBody(c));
    requireCreate(c, String(spec.name));
    const create = () => registry.createEndpoint(spec, c.get('principal'), { isLoaded: true });
    return answer(c, deps, await inWireWords(spec, create, { configPrefix: 'config' }));
  });
  app.get(`${BASE}/:name`, (c) => answer(c, deps, requireAction(c, deps, c.req.param('name'), 'view')));
  app.delete(`${BASE}/:name`, async (c) => {
    await registry.deleteEndpoint(managed(c, deps).name);
    return c.json({});
  });
  app.put(`${BASE}/:name/config`, async (c) => {
    const { name } = managed(c, deps);
    const update = toConfigUpdate(await readJsonBody(c));
    const change = () => registry.updateEndpointConfig(name, update, c.get('principal'));
    return answer(c, deps, await inWireWords(update, change));
  });
  addPolicyRoutes(app, deps);
  addEntityRoutes(app, deps);
  addUnofferedRoutes(app, deps);

  app.post(`${BASE}/:name/config:stop`, async (c) =>
    answer(c, deps, await registry.stopEndpoint(managed(c, deps).name)),
  );
  app.post(`${BASE}/:name/config:start`, async (c) =>
    answer(c, deps, await registry.startEndpoint(managed(c, deps).name)),
  );
  app.get(`${BASE}/:name/metrics`, async (c) => {
    const { name } = requireAction(c, deps, c.req.param('name'), 'view');
    if (deps.endpointMetrics === undefined) {
      throw new ServingError(
        'NOT_OFFERED',
        'Metrics of one endpoint are not kept here; GET /metrics has those of all.',
      );
    }
    return c.text(await deps.endpointMetrics(name), 200, {
      'content-type': 'text/plain; version=0.0.4; charset=utf-8',
    });
  });
  app.get(`${BASE}/:name/openapi`, (c) => {
    const endpoint = requireAction(c, deps, c.req.param('name'), 'view');
    if (!registry.stateOf(endpoint).isReady) {
      throw new ServingError(
        'RESOURCE_CONFLICT',
        `Endpoint '${endpoint.name}' is not ready; what it takes is known when it is.`,
      );
    }
    const signatureOf = (servedEntity: string) =>
      registry.resolve(endpoint.name, { servedEntity }).target.modelVersion?.signature;
    return c.json(formatEndpointOpenapi(endpoint, signatureOf, originOf(c)));
  });
}

/** What is about an endpoint but not about what it serves; in force at once. */
function addPolicyRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  const { registry } = deps;
  app.put(`${BASE}/:name/ai-gateway`, async (c) => {
    const { name } = managed(c, deps);
    const gateway = toGateway(await readBody(c, gatewayBody));
    const changed = await inWireWords(gateway, () => registry.setGateway(name, gateway));
    return c.json(changed.aiGateway === undefined ? {} : formatGateway(changed.aiGateway));
  });
  app.put(`${BASE}/:name/rate-limits`, async (c) => {
    const { name, aiGateway } = managed(c, deps);
    const { rate_limits = [] } = await readBody(c, rateLimitsBody);
    const rateLimits = (rate_limits ?? []).map(toRateLimit);
    const gateway = { ...aiGateway, rateLimits } as unknown as JsonObject;
    const changed = await inWireWords(gateway, () => registry.setGateway(name, gateway));
    return c.json({ rate_limits: (changed.aiGateway?.rateLimits ?? []).map(formatRateLimit) });
  });
  app.patch(`${BASE}/:name/tags`, async (c) => {
    const { name } = managed(c, deps);
    const { add_tags, delete_tags } = await readBody(c, tagsBody);
    const change = { add: (add_tags ?? []).map(toTag), remove: [...(delete_tags ?? [])] };
    const { tags } = await inWireWords(change, () => registry.setTags(name, change));
    return c.json({ tags: tags.map(formatTag) });
  });
  app.patch(`${BASE}/:name/notifications`, async (c) => {
    const { name } = managed(c, deps);
    const { email_notifications = null } = await readBody(c, notificationsBody);
    const changed = await registry.changeEndpointSettings(name, {
      email_notifications: email_notifications as Json,
    });
    return c.json({ name, email_notifications: changed.settings?.email_notifications ?? {} });
  });
}

function addEntityRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  const offer = (path: string, lines: (endpoint: string, entity: string) => readonly string[]) =>
    app.get(`${BASE}/:name/served-models/:entity/${path}`, (c) => {
      const { name } = requireAction(c, deps, c.req.param('name'), 'view');
      const text = lines(name, c.req.param('entity'));
      return c.json({ logs: text.map((line) => `${line}\n`).join('') });
    });
  offer('logs', (endpoint, entity) => deps.registry.entityLogs(endpoint, entity));
  offer('build-logs', (endpoint, entity) => deps.registry.entityBuildLogs(endpoint, entity));
}

/** Paths of the protocol that make sense only in the vendor's cloud. */
function addUnofferedRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.patch(`${BASE}/:name/telemetry-config`, (c) => {
    managed(c, deps);
    throw notOffered('telemetry_config');
  });
  app.patch(`${BASE}/:name/system-metrics-export-state`, (c) => {
    managed(c, deps);
    throw notOffered('uc_system_metrics_export_state');
  });
  app.post(`${BASE}/pt`, () => {
    throw new ServingError('NOT_OFFERED', PROVISIONED);
  });
  app.put(`${BASE}/pt/:name/config`, () => {
    throw new ServingError('NOT_OFFERED', PROVISIONED);
  });
  app.post('/api/2.0/external-function', () => {
    throw new ServingError(
      'NOT_OFFERED',
      'Requests through named connections are not offered: call the service directly, or serve a model with an external provider.',
    );
  });
}

const PROVISIONED =
  'Provisioned throughput is bought capacity of a cloud and is not offered: create an endpoint for a registered model or an external one.';

function managed(c: HttpContext, deps: HttpDeps): Endpoint {
  return requireAction(c, deps, c.req.param('name') ?? '', 'manage');
}

function answer(c: HttpContext, deps: HttpDeps, endpoint: Endpoint): Response {
  return c.json(formatEndpoint(endpoint, factsOf(c, deps, endpoint), originOf(c)));
}

function factsOf(c: HttpContext, deps: HttpDeps, endpoint: Endpoint): ViewFacts {
  return {
    state: deps.registry.stateOf(endpoint),
    level: deps.identity.levelOf(c.get('principal'), endpoint),
    idOf: (entity) => entityId(endpoint, entity),
    replicasOf: ({ name }) => deps.serving.replicasOf?.(endpoint.name, name),
  };
}

function originOf(c: HttpContext): string {
  return new URL(c.req.url).origin;
}

/** Requests that failed stand in the logs of their entity; their messages hold no secrets. */
function noteFailure({ registry }: HttpDeps, row: UsageRow): void {
  if (row.errorCode === null || row.servedEntity === null) return;
  registry.noteEntity(
    row.endpoint,
    row.servedEntity,
    `request ${row.requestId} failed: ${row.errorCode} (${row.statusCode}) ${row.errorMessage ?? ''}`,
  );
}
