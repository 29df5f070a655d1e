// What SQL has to know of an endpoint, from memory.
import type { EndpointDescription } from '#functions/function.ts';
import type { Serving } from '#serving/serving.ts';

export function describeEndpoint(serving: Serving, endpoint: string): EndpointDescription {
  const { target, signature } = serving.describe(endpoint);
  return {
    task: target.task,
    model: target.model,
    sha256: target.modelVersion?.sha256 ?? '',
    dimensions: target.modelVersion?.dimensions ?? null,
    fingerprint: target.fingerprint,
    signature: signature ?? target.modelVersion?.signature,
  };
}
