// The HTTP door's routes: what is offered where, what every request passes through, and what is said to those
// who ask for something else. Bodies and answers are in the files named after them.
import { randomUUID } from 'node:crypto';
import { Hono, type MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';
import { ServingError, toServingError } from '#core/errors.ts';
import { requireAdmin, requireSql } from '#governance/access.ts';
import { addAnthropicRoutes } from './anthropic/routes.ts';
import { authenticate } from './auth.ts';
import { hideNames } from './control/access.ts';
import { addControlRoutes } from './control/routes.ts';
import type { HttpDeps } from './deps.ts';
import { errorResponse } from './errors.ts';
import { keptRequestId } from './fast/request-id.ts';
import { addIdentityRoutes } from './identity-routes.ts';
import { addInvocationRoutes } from './invocations.ts';
import { addKserveRoutes } from './kserve/routes.ts';
import { addLimitsRoutes } from './limits-routes.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { addMlflowRoutes } from './mlflow/routes.ts';
import { addOpenaiRoutes } from './openai-routes.ts';
import { formatOpenapi } from './openapi.ts';
import type { HttpContext, HttpEnv } from './request.ts';
import { answerStatement } from './statements.ts';

/** `metrics`: where others count too. */
export function createHttpApp(deps: HttpDeps, metrics: Metrics = createMetrics(deps)): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>({ strict: false });
  app.onError((thrown, c) => answerError(c, deps, toServingError(thrown)));
  app.notFound((c) => answerUnknown(app, c));
  app.use(observe(deps, metrics));
  app.use(authenticate(deps));

  addOpenaiRoutes(app, deps);
  addAnthropicRoutes(app, deps);
  addInvocationRoutes(app, deps);
  addKserveRoutes(app, deps);
  addMlflowRoutes(app, deps);
  addControlRoutes(app, {
    ...deps,
    endpointMetrics: async (name) => metrics.renderEndpoint(deps.registry.getEndpoint(name)),
  });
  addStatementRoutes(app, deps);

  addIdentityRoutes(app, deps);
  addLimitsRoutes(app, deps);

  app.get('/health', (c) => c.json({ status: 'ok', version: deps.version }));
  app.get('/metrics', async (c) => {
    requireAdmin(c.get('principal'), 'see the metrics of all endpoints');
    const { text, contentType } = await metrics.render();
    return c.text(text, 200, { 'content-type': contentType });
  });
  app.get('/openapi.json', (c) => c.json(formatOpenapi(deps.version, app.routes)));
  return app;
}

function addStatementRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.post('/api/2.0/sql/statements', (c) => {
    requireSql(c.get('principal'));
    return answerStatement(c, deps);
  });
}

/** Gives the request its id and, when it is over, one log line and one count. Paths are logged without query. */
function observe(deps: HttpDeps, metrics: Metrics): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const startedMs = performance.now();
    const requestId = keptRequestId(c.env?.incoming) ?? randomUUID();
    c.set('requestId', requestId);
    c.header('x-request-id', requestId);
    const { method, path } = c.req;
    deps.tracing?.begin({ id: requestId, method, path, traceparent: c.req.header('traceparent') });
    await next();
    const outgoing = c.env?.outgoing;
    // Whoever left before the end did not see the status that was meant for them.
    const status = outgoing?.destroyed && !outgoing.writableFinished ? 499 : c.res.status;
    metrics.observeRequest(method, routePath(c, -1), status);
    const endpoint = c.get('endpoint');
    deps.tracing?.end(requestId, { status, route: routePath(c, -1), ...(endpoint && { endpoint }) });
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
  return errorResponse(c, hideNames(error, c.get('principal')));
}

/** 405 where the path exists for another method, else 404; both say what there is. */
function answerUnknown(app: Hono<HttpEnv>, c: HttpContext): Response {
  const { path, method } = c.req;
  const offered = app.routes.filter((route) => route.method !== 'ALL');
  const methods = offered.filter((route) => toPattern(route.path).test(path)).map((route) => route.method);
  if (methods.length > 0) {
    c.header('allow', methods.join(', '));
    const message = `${path} takes ${methods.join(' and ')}, not ${method}.`;
    return errorResponse(c, new ServingError('METHOD_NOT_ALLOWED', message));
  }
  const [, root] = path.split('/');
  const near = offered.filter((route) => route.path.split('/')[1] === root);
  const list = near.map((route) => `${route.method} ${route.path}`).join(', ');
  const hint = near.length > 0 ? `Under /${root} there are: ${list}.` : '/openapi.json lists what there is.';
  return errorResponse(c, new ServingError('NOT_FOUND', `There is no ${method} ${path}. ${hint}`));
}

function toPattern(path: string): RegExp {
  return new RegExp(`^${path.replaceAll('.', '\\.').replace(/\/:\w+/g, '/[^/]+')}/?$`);
}
