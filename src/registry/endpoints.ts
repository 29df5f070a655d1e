// Endpoints: resolving a name to a target without I/O, and creating, changing and deleting them.
import { randomUUID } from 'node:crypto';
import type { Principal, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { type Changes, putEndpoint } from './changes.ts';
import { byName, type Contents } from './contents.ts';
import { toConfig } from './endpoint-config.ts';
import { closeNames, quoteList } from './names.ts';
import { parseEndpointSpec, parseEndpointUpdate } from './schemas.ts';
import { namedTarget, pickTarget } from './targets.ts';

export interface ResolveOptions {
  readonly task?: Task;
  /** This entity and no other: the traffic split and fallbacks are ignored. */
  readonly servedEntity?: string;
  /** Uniform in [0, 1): chooses by the traffic split. Absent: the first route with traffic. */
  readonly random?: number;
}

export interface Resolution {
  readonly endpoint: Endpoint;
  readonly target: Target;
  /** The other served entities, in the order they were given. */
  readonly fallbacks: readonly Target[];
}

export class Endpoints {
  readonly #contents: Contents;
  readonly #changes: Changes;
  readonly #clock: Clock;

  constructor(contents: Contents, changes: Changes, clock: Clock) {
    this.#contents = contents;
    this.#changes = changes;
    this.#clock = clock;
  }

  resolve(name: string, options: ResolveOptions): Resolution {
    const compiled = this.#contents.compiled(name);
    if (compiled === undefined) throw this.#notFound(name, options.task);
    const { endpoint, targets } = compiled;
    if (options.task !== undefined && options.task !== endpoint.task)
      throw this.#wrongTask(endpoint, options.task);
    if (options.servedEntity !== undefined) {
      return { endpoint, target: namedTarget(compiled, options.servedEntity), fallbacks: [] };
    }
    const target = pickTarget(compiled, options.random ?? 0);
    return {
      endpoint,
      target,
      fallbacks: targets.length === 1 ? [] : targets.filter((other) => other !== target),
    };
  }

  get(name: string): Endpoint {
    const endpoint = this.#contents.endpoints.get(name);
    if (endpoint === undefined) throw this.#notFound(name, undefined);
    return endpoint;
  }

  list(): readonly Endpoint[] {
    return [...this.#contents.endpoints.values()].sort(byName);
  }

  create(spec: unknown, principal: Principal): Promise<Endpoint> {
    return this.#changes.inTurn(async () => {
      const parsed = parseEndpointSpec(spec);
      if (this.#contents.endpoints.has(parsed.name)) {
        throw new ServingError(
          'ALREADY_EXISTS',
          `There is an endpoint '${parsed.name}' already. Choose another name, or delete that one first.`,
        );
      }
      const endpoint: Endpoint = {
        ...newEndpoint(parsed.name, principal, this.#clock.now()),
        ...toConfig(parsed, (model, version) => this.#contents.findVersion(model, version)),
        description: parsed.description ?? '',
        tags: parsed.tags ?? [],
      };
      await this.#changes.write([putEndpoint(endpoint)], { kind: 'endpoint', name: endpoint.name });
      return endpoint;
    });
  }

  updateConfig(name: string, spec: unknown): Promise<Endpoint> {
    return this.#changes.inTurn(async () => {
      const current = this.#changeable(name);
      const update = parseEndpointUpdate(spec);
      const routes = update.routes ?? (update.servedEntities === undefined ? current.routes : undefined);
      const servedEntities = update.servedEntities ?? current.servedEntities;
      const config = toConfig({ name, task: current.task, servedEntities, routes }, (model, version) =>
        this.#contents.findVersion(model, version),
      );
      const endpoint: Endpoint = {
        ...current,
        ...config,
        configVersion: current.configVersion + 1,
        description: update.description ?? current.description,
        tags: update.tags ?? current.tags,
        updatedAtMs: this.#clock.now(),
      };
      await this.#changes.write([putEndpoint(endpoint)], { kind: 'endpoint', name });
      return endpoint;
    });
  }

  delete(name: string): Promise<void> {
    return this.#changes.inTurn(async () => {
      this.#changeable(name);
      const setting = [...this.#contents.settings].find(([, value]) => value === name)?.[0];
      if (setting !== undefined) {
        throw new ServingError(
          'RESOURCE_CONFLICT',
          `Endpoint '${name}' is the ${setting}. Set another one first.`,
        );
      }
      await this.#changes.write([{ type: 'delete', kind: 'endpoint', key: name }], {
        kind: 'endpoint',
        name,
      });
    });
  }

  #changeable(name: string): Endpoint {
    const endpoint = this.get(name);
    if (!endpoint.isEmbedded) return endpoint;
    throw new ServingError(
      'RESOURCE_CONFLICT',
      `Endpoint '${name}' is built in and cannot be changed or deleted. Create one of another name.`,
    );
  }

  #notFound(name: string, task: Task | undefined): ServingError {
    const candidates = this.list()
      .filter((endpoint) => task === undefined || endpoint.task === task)
      .map((endpoint) => endpoint.name);
    const close = closeNames(name, candidates);
    const more = candidates.length > 10 ? `, and ${candidates.length - 10} more` : '';
    const all = `Endpoints${task === undefined ? '' : ` for ${task}`}: ${candidates.slice(0, 10).join(', ') || 'none yet'}${more}.`;
    const hint = close.length > 0 ? `Did you mean ${quoteList(close)}?` : all;
    return new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${name}'. ${hint}`, {
      details: { endpoint: name, close },
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

/** Without anything served yet. */
export function newEndpoint(name: string, principal: Principal, nowMs: number): Endpoint {
  return {
    id: randomUUID(),
    name,
    task: 'predict',
    servedEntities: [],
    routes: [],
    configVersion: 1,
    description: '',
    tags: [],
    creator: principal.name,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    isEmbedded: false,
  };
}
