// Where a model of Vertex AI is found: host of its region, path of its publisher.
import type { ExternalModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

export interface VertexAddress {
  readonly baseUrl: string;
  /** The verb is put behind it: `:generateContent`. */
  readonly path: string;
  readonly publisher: 'google' | 'anthropic';
  /** Without publisher and folder. */
  readonly model: string;
}

export function addressOf({ name, vertex, baseUrl }: ExternalModel): VertexAddress {
  if (vertex === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `External model "${name}" has no settings of Vertex AI. Give project id, region and private key.`,
    );
  }
  const { projectId, region } = vertex;
  if (!/^[a-z0-9-]+$/.test(region)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `"${region}" is no region of Vertex AI. Give one such as "us-central1", or "global".`,
    );
  }
  const { publisher, folder, model } = resolveName(name);
  const base = `/v1/projects/${encodeURIComponent(projectId)}/locations/${region}`;
  // Versions of models stand behind an `@`, which is written as it is.
  const path = `${base}/${folder}/${encodeURIComponent(model).replaceAll('%40', '@')}`;
  return { baseUrl: (baseUrl ?? hostOf(region)).replace(/(\/v1)?\/*$/, ''), path, publisher, model };
}

/** Regions, the two multi-regions, and the whole world have three kinds of names. */
function hostOf(region: string): string {
  if (region === 'global') return 'https://aiplatform.googleapis.com';
  if (region === 'us' || region === 'eu') return `https://aiplatform.${region}.rep.googleapis.com`;
  return `https://${region}-aiplatform.googleapis.com`;
}

function resolveName(name: string): {
  readonly publisher: VertexAddress['publisher'];
  readonly folder: string;
  readonly model: string;
} {
  const tuned = /^endpoints\/([\w-]+)$/.exec(name)?.[1];
  if (tuned !== undefined) return { publisher: 'google', folder: 'endpoints', model: tuned };
  const [, named, inside] = /^publishers\/([\w-]+)\/models\/([^/]+)$/.exec(name) ?? [];
  const model = inside ?? name.replace(/^models\//, '');
  const publisher = named ?? (model.startsWith('claude') ? 'anthropic' : 'google');
  if ((publisher === 'google' || publisher === 'anthropic') && !model.includes('/')) {
    return { publisher, folder: `publishers/${publisher}/models`, model };
  }
  throw new ServingError(
    'INVALID_PARAMETER',
    `"${name}" is no model of Vertex AI that can be asked from here. Give one of Google or Anthropic, such as "gemini-2.5-flash" or "publishers/anthropic/models/claude-sonnet-4", or "endpoints/ID" for a tuned Gemini.`,
  );
}
