// Who may do what to endpoints, asked of governance in one place for all routes of the control plane.
import type { Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Action } from '#core/policies.ts';
import { authorizeCreate } from '#governance/access.ts';
import type { HttpDeps } from '../deps.ts';
import type { HttpContext } from '../request.ts';

/** The endpoint, if the caller may. Throws ENDPOINT_NOT_FOUND, PERMISSION_DENIED. */
export function requireAction(c: HttpContext, deps: HttpDeps, name: string, action: Action): Endpoint {
  c.set('endpoint', name);
  const endpoint = deps.registry.getEndpoint(name);
  deps.identity.authorize(c.get('principal'), endpoint, action);
  return endpoint;
}

export function requireCreate(c: HttpContext, name: string): void {
  c.set('endpoint', name);
  authorizeCreate(c.get('principal'), name);
}

/**
 * Names that are close, or that would fit, help who may see all endpoints. To others they would tell what there
 * is, so they learn only that theirs is not there.
 */
export function hideNames(error: ServingError, principal: Principal | undefined): ServingError {
  const tells = error.code === 'ENDPOINT_NOT_FOUND' || error.code === 'WRONG_TASK';
  if (!tells || principal === undefined || (principal.isAdmin && !principal.endpoints)) return error;
  const [sentence = error.message] = error.message.split(
    /(?<=\.)\s+(?=Did you mean |Endpoints for |Endpoints: )/,
  );
  return sentence === error.message ? error : new ServingError(error.code, sentence, { cause: error });
}
