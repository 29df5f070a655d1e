// The Open Inference Protocol (KServe v2) over REST with JSON tensors: the server, its models, their answers.
import type { Hono } from 'hono';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from '../deps.ts';
import type { HttpContext, HttpEnv } from '../request.ts';
import { describeModel, viewEndpoint } from '../visible.ts';
import { answerInfer, EMBEDDING_OUTPUT } from './infer.ts';
import { formatColumn } from './tensors.ts';
import { findEntity, versionOf } from './versions.ts';

const MODEL = '/v2/models/:name';
const VERSION = `${MODEL}/versions/:version`;

export function addKserveRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.get('/v2', (c) =>
    c.json({ name: 'duckserve', version: deps.version, extensions: ['binary_tensor_data'] }),
  );
  app.get('/v2/health/live', (c) => c.json({ live: true }));
  app.get('/v2/health/ready', (c) => c.json({ ready: true }));
  for (const path of [MODEL, VERSION]) {
    app.get(path, (c) => c.json(formatMetadata(c, deps, findModel(c, deps).endpoint)));
    app.get(`${path}/ready`, (c) => c.json(formatReady(findModel(c, deps).endpoint)));
    app.post(`${path}/infer`, (c) => {
      const { endpoint, servedEntity } = findModel(c, deps);
      return answerInfer(c, deps, endpoint, servedEntity);
    });
  }
}

function findModel(c: HttpContext, deps: HttpDeps) {
  const endpoint = viewEndpoint(c, deps, c.req.param('name') ?? '');
  const version = c.req.param('version');
  if (version === undefined) return { endpoint, servedEntity: undefined };
  const { target } = describeModel(c, deps, endpoint.name);
  return { endpoint, servedEntity: findEntity(endpoint, version, target) };
}

/** A stopped endpoint is refused as its calls are. */
function formatReady(endpoint: Endpoint): JsonObject {
  if (!endpoint.isStopped) return { name: endpoint.name, ready: true };
  throw new ServingError('ENDPOINT_STOPPED', `Endpoint '${endpoint.name}' is stopped: start it to query it.`);
}

function formatMetadata(c: HttpContext, deps: HttpDeps, endpoint: Endpoint): JsonObject {
  const { target, signature } = describeModel(c, deps, endpoint.name);
  const shared = {
    name: endpoint.name,
    versions: endpoint.servedEntities.map((entity) => versionOf(entity, target)),
    platform: target === undefined ? 'duckserve' : `duckserve_${target.engine}`,
  };
  if (endpoint.task === 'predict') {
    const { inputs = [], outputs = [] } = signature ?? {};
    return { ...shared, inputs: inputs.map(formatColumn), outputs: outputs.map(formatColumn) };
  }
  if (endpoint.task !== 'llm/v1/embeddings') return { ...shared, inputs: [], outputs: [] };
  const dimensions = target?.modelVersion?.dimensions ?? -1;
  return {
    ...shared,
    inputs: [{ name: 'text', datatype: 'BYTES', shape: [-1] }],
    outputs: [{ name: EMBEDDING_OUTPUT, datatype: 'FP32', shape: [-1, dimensions] }],
  };
}
