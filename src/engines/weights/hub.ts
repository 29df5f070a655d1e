// Reads files of a Hugging Face style hub: `<hub>/<repository>/resolve/<revision>/<file>`. Only when the user named one.
import type { WeightFile } from './catalogue.ts';

export interface Hub {
  /** Without a slash at the end. */
  readonly url: string;
  /** The environment variable it was named by; said instead of the address. */
  readonly variable: 'DUCKSERVE_HUB' | 'HF_ENDPOINT';
  readonly token: string | undefined;
}

/** The hub the environment names, if any. DUCKSERVE_HUB goes before HF_ENDPOINT. */
export function hubOf(env: NodeJS.ProcessEnv): Hub | undefined {
  for (const variable of ['DUCKSERVE_HUB', 'HF_ENDPOINT'] as const) {
    const url = env[variable]?.trim().replace(/\/+$/, '');
    if (url) return { url, variable, token: env.HF_TOKEN || undefined };
  }
  return undefined;
}

/** Streams one file to `sink`. Redirects to a content network are followed; the token does not go to other hosts. */
export async function readFromHub(
  hub: Hub,
  source: { readonly repository: string; readonly revision: string },
  file: WeightFile,
  sink: (bytes: Uint8Array) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const { fetch } = await import('undici');
  const response = await fetch(`${hub.url}/${source.repository}/resolve/${source.revision}/${file.hubPath}`, {
    headers: hub.token === undefined ? {} : { authorization: `Bearer ${hub.token}` },
    ...(signal ? { signal } : {}),
  });
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    throw new Error(`HTTP ${response.status} for ${source.repository}/${file.hubPath}`);
  }
  for await (const chunk of response.body) await sink(chunk as Uint8Array);
}
