// Limits of the workspace over HTTP: what is set, what is used now, and setting them. Those of one endpoint are part
// of its `ai_gateway`.
import type { Hono } from 'hono';
import { ServingError } from '#core/errors.ts';
import { requireAdmin } from '#governance/access.ts';
import { formatUse } from '#governance/limits/document.ts';
import type { Limits } from '#governance/limits/limits.ts';
import type { HttpDeps } from './deps.ts';
import { type HttpEnv, readJsonBody } from './request.ts';

export type LimitsDoor = Pick<Limits, 'rules' | 'readings' | 'setRules'>;

const PATH = '/api/2.0/duckserve/limits';

export function addLimitsRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.get(PATH, (c) => {
    requireAdmin(c.get('principal'), 'see the limits of everybody');
    const limits = limitsOf(deps);
    return c.json(formatUse(limits.rules, limits.readings()));
  });
  app.put(PATH, async (c) => {
    requireAdmin(c.get('principal'), 'set the limits of the workspace', 'manage');
    const limits = limitsOf(deps);
    await limits.setRules(await readJsonBody(c));
    return c.json(formatUse(limits.rules, limits.readings()));
  });
}

function limitsOf({ limits }: HttpDeps): LimitsDoor {
  if (limits) return limits;
  throw new ServingError('NOT_OFFERED', 'This server was started without limits.');
}
