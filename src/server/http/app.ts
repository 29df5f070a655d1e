// The HTTP door's routes: what is offered where, what every request passes through, and what is said to those
// who ask for something else. Bodies and answers are in the files named after them.
import { randomUUID } from 'node:crypto';
import { Hono, type MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';
import { ServingError, toServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { authenticate } from './auth.ts';
import type { HttpDeps } from './deps.ts';
import { toEndpointSpec } from './endpoint-spec.ts';
import { formatEndpoint, formatEndpointList } from './endpoints.ts';
import { errorResponse } from './errors.ts';
import { answerInvocation } from './invocations.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { formatModel, formatModelList } from './models.ts';
import { answerChat } from './openai-chat.ts';
import { answerCompletions } from './openai-completions.ts';
import { answerEmbeddings } from './openai-embeddings.ts';
import { formatOpenapi } from './openapi.ts';
import { type HttpContext, type HttpEnv, readJsonBody, readModel } from './request.ts';
import { answerStatement } from './statements.ts';

export function createHttpApp(deps: HttpDeps): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>({ strict: false });
  const metrics = createMetrics(deps);
  app.onError((thrown, c) => answerError(c, deps, toServingError(thrown)));
  app.notFound((c) => answerUnknown(app, c));
  app.use(observe(deps, metrics));
  app.use(authenticate(deps.authTokens));

  // The OpenAI clients append to their base URL: `{host}/v1`, or `{host}/serving-endpoints` as on Databricks.
  addOpenaiRoutes(app, deps, '/v1');
  addOpenaiRoutes(app, deps, '/serving-endpoints');
  addDatabricksRoutes(app, deps);

  app.get('/health', (c) => c.json({ status: 'ok', version: deps.version }));
  app.get('/metrics', async (c) => {
    const { text, contentType } = await metrics.render();
    return c.text(text, 200, { 'content-type': contentType });
  });
  app.get('/openapi.json', (c) => c.json(formatOpenapi(deps.version)));
  return app;
}

type AnswerOpenai = (c: HttpContext, deps: HttpDeps, endpoint: string, body: JsonObject) => Promise<Response>;

function addOpenaiRoutes(app: Hono<HttpEnv>, deps: HttpDeps, base: string): void {
  const offer = (path: string, answer: AnswerOpenai) =>
    app.post(`${base}${path}`, async (c) => {
      const body = await readJsonBody(c);
      return answer(c, deps, readModel(body), body);
    });
  offer('/chat/completions', answerChat);
  offer('/completions', answerCompletions);
  offer('/embeddings', answerEmbeddings);
  app.get(`${base}/models`, (c) => c.json(formatModelList(deps.registry.listEndpoints())));
  app.get(`${base}/models/:name`, (c) => c.json(formatModel(deps.registry.getEndpoint(c.req.param('name')))));
}

function addDatabricksRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  const { registry } = deps;
  app.post('/serving-endpoints/:name/invocations', (c) => answerInvocation(c, deps, c.req.param('name')));
  app.post('/serving-endpoints/:name/served-models/:entity/invocations', (c) =>
    answerInvocation(c, deps, c.req.param('name'), c.req.param('entity')),
  );
  app.get('/api/2.0/serving-endpoints', (c) => c.json(formatEndpointList(registry.listEndpoints())));
  app.post('/api/2.0/serving-endpoints', async (c) => {
    const spec = toEndpointSpec(await readJsonBody(c));
    return c.json(formatEndpoint(await registry.createEndpoint(spec, c.get('principal'))));
  });
  app.get('/api/2.0/serving-endpoints/:name', (c) =>
    c.json(formatEndpoint(registry.getEndpoint(c.req.param('name')))),
  );
  app.delete('/api/2.0/serving-endpoints/:name', async (c) => {
    await registry.deleteEndpoint(c.req.param('name'));
    return c.json({});
  });
  app.post('/api/2.0/sql/statements', (c) => answerStatement(c, deps));
}

/** Gives the request its id and, when it is over, one log line and one count. Paths are logged without query. */
function observe(deps: HttpDeps, metrics: Metrics): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const startedMs = performance.now();
    const requestId = randomUUID();
    c.set('requestId', requestId);
    c.header('x-request-id', requestId);
    await next();
    const outgoing = c.env?.outgoing;
    // Whoever left before the end did not see the status that was meant for them.
    const status = outgoing?.destroyed && !outgoing.writableFinished ? 499 : c.res.status;
    metrics.observeRequest(c.req.method, routePath(c, -1), status);
    deps.log.info(
      {
        requestId,
        method: c.req.method,
        path: c.req.path,
        status,
        durationMs: Math.round((performance.now() - startedMs) * 10) / 10,
        ...(c.get('endpoint') === undefined ? {} : { endpoint: c.get('endpoint') }),
      },
      'request',
    );
  };
}

function answerError(c: HttpContext, deps: HttpDeps, error: ServingError): Response {
  const fields = { requestId: c.get('requestId'), code: error.code, message: error.message };
  const cause =
    error.code === 'INTERNAL' ? { stack: (error.cause as Error | undefined)?.stack ?? error.stack } : {};
  deps.log[error.row.logLevel]({ ...fields, ...cause }, 'request failed');
  return errorResponse(c, error);
}

/** 405 where the path exists for another method, else 404; both say what there is. */
function answerUnknown(app: Hono<HttpEnv>, c: HttpContext): Response {
  const { path, method } = c.req;
  const offered = app.routes.filter((route) => route.method !== 'ALL');
  const methods = offered.filter((route) => toPattern(route.path).test(path)).map((route) => route.method);
  if (methods.length > 0) {
    c.header('allow', methods.join(', '));
    const message = `${path} takes ${methods.join(' and ')}, not ${method}.`;
    return errorResponse(c, new ServingError('BAD_REQUEST', message), 405);
  }
  const list = offered.map((route) => `${route.method} ${route.path}`).join(', ');
  return errorResponse(
    c,
    new ServingError('NOT_FOUND', `There is no ${method} ${path}. Offered are: ${list}.`),
  );
}

function toPattern(path: string): RegExp {
  return new RegExp(`^${path.replaceAll('.', '\\.').replace(/:\w+/g, '[^/]+')}/?$`);
}
