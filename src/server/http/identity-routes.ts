// Routes about who may do what: permissions of endpoints, tokens, and principals as SCIM shows them.
// What the bodies look like is in the files named after them; the rules are governance's.
import type { Hono } from 'hono';
import type { Identity } from '#governance/identity/identity.ts';
import type { HttpDeps } from './deps.ts';
import { addPermissionRoutes } from './identity-permissions.ts';
import { addScimRoutes } from './identity-scim.ts';
import { addTokenRoutes } from './identity-tokens.ts';
import type { HttpEnv } from './request.ts';

export interface IdentityDeps {
  readonly identity: Identity;
  readonly registry: Pick<HttpDeps['registry'], 'listEndpoints'>;
}

export function addIdentityRoutes(app: Hono<HttpEnv>, deps: IdentityDeps): void {
  addPermissionRoutes(app, deps);
  addTokenRoutes(app, deps.identity);
  addScimRoutes(app, deps.identity);
  // Databricks' clients look here for their ways to sign in. There are none but the token they have.
  app.get('/.well-known/databricks-config', (c) => c.json({ oidc_endpoint: '' }));
}
