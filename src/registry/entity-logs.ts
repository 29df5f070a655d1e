// The last lines about each served entity, in memory: what became of it, and what went wrong with it. For people
// who ask for the logs of an endpoint; the ledger and the log of the process have everything.
import type { Clock } from '#core/clock.ts';
import type { ModelVersion, ServedEntity } from '#core/endpoint.ts';

const LINES_PER_ENTITY = 200;
const LONGEST_LINE = 1_000;
const MOST_ENTITIES = 2_000;

export class EntityLogs {
  readonly #clock: Clock;
  /** By endpoint and entity, the longest silent first. */
  readonly #lines = new Map<string, string[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(endpoint: string, entity: string, text: string): void {
    const key = `${endpoint}/${entity}`;
    const lines = this.#lines.get(key) ?? [];
    this.#lines.delete(key);
    this.#lines.set(key, lines);
    const time = new Date(this.#clock.now()).toISOString();
    lines.push(`${time} ${text.replaceAll(/\s+/g, ' ').slice(0, LONGEST_LINE)}`);
    if (lines.length > LINES_PER_ENTITY) lines.shift();
    if (this.#lines.size > MOST_ENTITIES) {
      for (const oldest of this.#lines.keys()) {
        this.#lines.delete(oldest);
        break;
      }
    }
  }

  /** Oldest first; empty where nothing has been said since this process began. */
  lines(endpoint: string, entity: string): readonly string[] {
    return this.#lines.get(`${endpoint}/${entity}`) ?? [];
  }

  forget(endpoint: string): void {
    for (const key of this.#lines.keys()) if (key.startsWith(`${endpoint}/`)) this.#lines.delete(key);
  }
}

/** How the model of an entity came to be here. Nothing is built when it is served, so this is all there is. */
export function buildLines(entity: ServedEntity, version: ModelVersion | undefined): readonly string[] {
  if (entity.externalModel !== undefined) {
    const { name, provider, task } = entity.externalModel;
    return [`External model ${name} of ${provider} for ${task}: nothing was built here.`];
  }
  if (version === undefined) return [`Model ${entity.entityName}: this version is not registered any more.`];
  const { signature } = version;
  const columns = (list: readonly { readonly name: string; readonly type: string }[] = []) =>
    list.map(({ name, type }) => `${name} ${type}`).join(', ') || 'not known';
  return [
    `Registered ${version.model} version ${version.version} at ${new Date(version.createdAtMs).toISOString()}`,
    `Engine ${version.engine}, task ${version.task}, ${version.sizeBytes} bytes`,
    `SHA-256 ${version.sha256 || '(none)'}`,
    ...(signature === undefined
      ? []
      : [`Inputs: ${columns(signature.inputs)}`, `Outputs: ${columns(signature.outputs)}`]),
    'Nothing was built: the engine runs the files as they are.',
  ];
}
