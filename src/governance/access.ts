// Who may do what with an endpoint: administrators everything, others what they created, and everybody may ask
// the built-in endpoints. Without authentication there is one principal, the owner of the data directory.
import type { Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

export type Action = 'query' | 'manage';

/** Throws PERMISSION_DENIED. */
export function authorize(principal: Principal, endpoint: Endpoint, action: Action): void {
  if (principal.isAdmin || endpoint.creator === principal.name) return;
  if (endpoint.isEmbedded && action === 'query') return;
  throw new ServingError(
    'PERMISSION_DENIED',
    `'${principal.name}' may not ${action} endpoint '${endpoint.name}', which belongs to '${endpoint.creator}'. Ask its owner or an administrator.`,
  );
}
