// MLflow's scoring server, for programs that know one model at one address: POST /invocations, /ping, /version.
// Which endpoint is meant: `?endpoint=`, the header x-duckserve-endpoint, else the only custom model there is.
import type { Hono } from 'hono';
import { ServingError } from '#core/errors.ts';
import type { HttpDeps } from '../deps.ts';
import { answerInvocation } from '../invocations.ts';
import type { HttpContext, HttpEnv } from '../request.ts';
import { visibleEndpoints } from '../visible.ts';

const ENDPOINT_HEADER = 'x-duckserve-endpoint';

export function addMlflowRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.post('/invocations', (c) => answerInvocation(c, deps, chooseEndpoint(c, deps)));
  app.post('/gateway/:name/mlflow/invocations', (c) => answerInvocation(c, deps, c.req.param('name')));
  app.get('/ping', (c) => c.text('\n'));
  app.get('/version', (c) => c.text(deps.version));
}

function chooseEndpoint(c: HttpContext, deps: HttpDeps): string {
  const named = c.req.query('endpoint') ?? c.req.header(ENDPOINT_HEADER);
  if (named !== undefined && named !== '') return named;
  const names = visibleEndpoints(c, deps)
    .filter((endpoint) => endpoint.task === 'predict' && !endpoint.isEmbedded)
    .map(({ name }) => name);
  const [only] = names;
  if (only !== undefined && names.length === 1) return only;
  const found = names.length === 0 ? 'there is none' : `there are ${names.slice(0, 20).join(', ')}`;
  throw new ServingError(
    'BAD_REQUEST',
    `/invocations asks the only custom model, and ${found}: name an endpoint with ?endpoint=NAME or the header ${ENDPOINT_HEADER}.`,
  );
}
