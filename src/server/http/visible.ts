// Endpoints as the caller may see them. Whether a call may be made is asked again by serving, for all doors alike.
import type { Endpoint, Signature, Target } from '#core/endpoint.ts';
import type { HttpDeps } from './deps.ts';
import type { HttpContext } from './request.ts';

export function visibleEndpoints(c: HttpContext, deps: HttpDeps): readonly Endpoint[] {
  return deps.identity.visible(c.get('principal'), deps.registry.listEndpoints());
}

/** Throws ENDPOINT_NOT_FOUND, PERMISSION_DENIED. */
export function viewEndpoint(c: HttpContext, deps: HttpDeps, name: string): Endpoint {
  const endpoint = deps.registry.getEndpoint(name);
  deps.identity.authorize(c.get('principal'), endpoint, 'view');
  return endpoint;
}

interface ModelFacts {
  readonly target?: Target;
  readonly signature?: Signature;
}

/** What is known of the model behind an endpoint; nothing where serving does not tell. Throws as `viewEndpoint`. */
export function describeModel(c: HttpContext, deps: HttpDeps, name: string): ModelFacts {
  const { task } = viewEndpoint(c, deps, name);
  return deps.serving.describe?.(name, task) ?? {};
}
