// Access tokens of Microsoft Entra for Azure: client credentials in, bearer token out.
// Not here: keeping and renewing them (http/token.ts).
import type { ExternalModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { EngineContext } from '../engine.ts';
import { askToken, TokenSource } from '../http/token.ts';

const AUTHORITY_URL = 'https://login.microsoftonline.com';
const SCOPE = 'https://cognitiveservices.azure.com/.default';

export function openEntraTokens(model: ExternalModel, context: EngineContext): TokenSource {
  const { entra, name } = model;
  if (entra === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `External model "${name}" is of API type azuread and has no Entra credentials. Give tenant id, client id and client secret.`,
    );
  }
  const authority = (entra.authorityUrl ?? AUTHORITY_URL).replace(/\/+$/, '');
  const url = `${authority}/${encodeURIComponent(entra.tenantId)}/oauth2/v2.0/token`;
  return new TokenSource(async () => {
    const secret = context.resolveSecret(entra.clientSecret).trim();
    const form = {
      grant_type: 'client_credentials',
      client_id: entra.clientId,
      client_secret: secret,
      scope: SCOPE,
    };
    return askToken({ provider: 'Microsoft Entra for', model: name, url, form, secret });
  });
}
