// ai_model: which model an endpoint answers with: id, version, hash, dimensions. What a stored vector needs
// to remember. Never asks a model.
import { type AiFunction, requireText } from './function.ts';

export const aiModel: AiFunction = {
  name: '__ai_model',
  returns: 'JSON',
  subject: 0,
  plan([endpointValue], context) {
    const endpoint =
      endpointValue == null
        ? context.defaultEndpoint('embedding')
        : requireText(endpointValue, 'endpoint', 'ai_model');
    const { task, model, sha256, dimensions, fingerprint } = context.describe(endpoint);
    return {
      value: { endpoint, model, task, sha256: sha256 === '' ? null : sha256, dimensions, fingerprint },
    };
  },
};
