// Endpoints by name: resolving one to a target without I/O, and what to say of names that do not exist.
// How they change is in endpoint-changes.ts.
import type { Task } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { byName, type Contents } from './contents.ts';
import { closeNames, quoteList } from './names.ts';
import { namedResolution, pickResolution, type Resolution } from './targets.ts';

export type { Resolution };

export interface ResolveOptions {
  readonly task?: Task;
  /** This entity and no other: the traffic split and fallbacks are ignored. */
  readonly servedEntity?: string;
  /** Uniform in [0, 1): chooses by the traffic split. Absent: the first route with traffic. */
  readonly random?: number;
}

const LONGEST_SHOWN = 80;

export class Endpoints {
  readonly #contents: Contents;

  constructor(contents: Contents) {
    this.#contents = contents;
  }

  resolve(name: string, options: ResolveOptions): Resolution {
    const compiled = this.#contents.compiled(name);
    if (compiled === undefined) throw this.#notFound(name, options.task);
    const { endpoint } = compiled;
    if (options.task !== undefined && options.task !== endpoint.task)
      throw this.#wrongTask(endpoint, options.task);
    if (options.servedEntity !== undefined) {
      return { ...namedResolution(compiled, options.servedEntity), fallbacks: [] };
    }
    return pickResolution(compiled, options.random ?? 0);
  }

  get(name: string): Endpoint {
    const endpoint = this.#contents.endpoints.get(name);
    if (endpoint === undefined) throw this.#notFound(name, undefined);
    return endpoint;
  }

  list(): readonly Endpoint[] {
    return [...this.#contents.endpoints.values()].sort(byName);
  }

  #notFound(name: string, task: Task | undefined): ServingError {
    const candidates = this.list()
      .filter((endpoint) => task === undefined || endpoint.task === task)
      .map((endpoint) => endpoint.name);
    const close = closeNames(name, candidates);
    const more = candidates.length > 10 ? `, and ${candidates.length - 10} more` : '';
    const all = `Endpoints${task === undefined ? '' : ` for ${task}`}: ${candidates.slice(0, 10).join(', ') || 'none yet'}${more}.`;
    const hint = close.length > 0 ? `Did you mean ${quoteList(close)}?` : all;
    const shown = name.length > LONGEST_SHOWN ? `${name.slice(0, LONGEST_SHOWN)}…` : name;
    return new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${shown}'. ${hint}`, {
      details: { endpoint: shown, close },
    });
  }

  #wrongTask(endpoint: Endpoint, task: Task): ServingError {
    const fitting = this.list()
      .filter((other) => other.task === task)
      .slice(0, 5)
      .map((other) => other.name);
    const hint =
      fitting.length === 0 ? 'No endpoint serves it yet.' : `Endpoints for ${task}: ${fitting.join(', ')}.`;
    return new ServingError(
      'WRONG_TASK',
      `Endpoint '${endpoint.name}' serves ${endpoint.task}, not ${task}. ${hint}`,
    );
  }
}
