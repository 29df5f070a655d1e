// Registered models: their versions, aliases and files. What a file is, an engine says; how it runs is not known here.
import { rm } from 'node:fs/promises';
import { join, relative, resolve, sep } from 'node:path';
import { LOCAL_OWNER, type Principal, type Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { EngineKind, ModelInspection, ModelVersion, RegisteredModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import {
  artifactName,
  removeArtifact,
  removeStale,
  type StoredArtifact,
  scratchFolder,
  storeArtifact,
} from './artifacts.ts';
import { type Changes, putEndpoint, putModel, putModelVersion } from './changes.ts';
import { byName, type Contents, type StoredModel } from './contents.ts';
import { EMBEDDED_PREFIX } from './embedded.ts';
import { newId } from './endpoint-config.ts';
import { newEndpoint } from './new-endpoint.ts';
import { parseName } from './schemas.ts';

/** Throws INVALID_PARAMETER for what cannot be run, MODEL_NOT_AVAILABLE where what runs it is missing. */
export type InspectModel = (path: string, request: InspectRequest) => Promise<ModelInspection>;

export interface InspectRequest
  extends Pick<RegisterOptions, 'engine' | 'allowCode' | 'convert' | 'options'> {
  /** For files that are made of what was given, `ModelInspection.files`. Does not exist; removed afterwards. */
  readonly unpackInto: string;
}

export interface RegisterOptions {
  readonly alias?: string;
  readonly description?: string;
  readonly licence?: string;
  /** What the inspection found is overruled. */
  readonly task?: Task;
  readonly engine?: EngineKind;
  /** Added to what the inspection found. */
  readonly options?: JsonObject;
  /** Default true: an endpoint of the model's name that serves its newest version, unless the name is taken. */
  readonly createsEndpoint?: boolean;
  readonly principal?: Principal;
  /** Models that are programs (Python, pickles, modules) are taken; without it they are refused with what would run. */
  readonly allowCode?: boolean;
  /** A model that needs Python is turned into one that does not, where that can be done. */
  readonly convert?: boolean;
  /** Hears what the inspection found, when it is registered. */
  readonly onFound?: (found: ModelInspection) => void;
}

export interface ListedModel {
  readonly model: RegisteredModel;
  /** Oldest first. */
  readonly versions: readonly ModelVersion[];
}

export interface ModelsOptions {
  readonly artifactsDir: string;
  readonly clock: Clock;
  readonly inspectModel: InspectModel;
  readonly log: Log;
}

export class Models {
  readonly #contents: Contents;
  readonly #changes: Changes;
  readonly #options: ModelsOptions;
  readonly #artifactsDir: string;

  constructor(contents: Contents, changes: Changes, options: ModelsOptions) {
    this.#contents = contents;
    this.#changes = changes;
    this.#options = options;
    this.#artifactsDir = resolve(options.artifactsDir);
  }

  list(): readonly ListedModel[] {
    return [...this.#contents.models.values()].sort(byName).map((model) => ({
      model,
      versions: this.#versionsOf(model.name).sort(
        (left, right) => Number(left.version) - Number(right.version),
      ),
    }));
  }

  async register(name: string, path: string, options: RegisterOptions): Promise<ModelVersion> {
    parseName(name, 'The name of a model');
    if (options.alias !== undefined) parseAlias(options.alias);
    this.#refuseEmbedded(name);
    await removeStale(this.#artifactsDir, this.#options.clock.now());
    const scratch = scratchFolder(this.#artifactsDir);
    try {
      const inspection = await this.#options.inspectModel(resolve(path), {
        unpackInto: scratch,
        ...pick(options, 'engine', 'allowCode', 'convert', 'options'),
      });
      const found = {
        ...inspection,
        engine: options.engine ?? inspection.engine,
        task: options.task ?? inspection.task,
      };
      const version = await this.#store(name, path, found, options);
      options.onFound?.(found);
      return version;
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  setAlias(model: string, alias: string, version: string): Promise<void> {
    return this.#changes.inTurn(async () => {
      parseAlias(alias);
      this.#refuseEmbedded(model);
      const { version: number } = this.#contents.findVersion(model, version);
      const stored = this.#stored(model);
      const aliases = { ...stored?.aliases, [alias]: number };
      if (stored !== undefined)
        await this.#changes.write([putModel({ ...stored, aliases })], { kind: 'model', name: model });
    });
  }

  deleteVersion(model: string, versionOrAlias: string): Promise<void> {
    return this.#changes.inTurn(async () => {
      this.#refuseEmbedded(model);
      const version = this.#contents.findVersion(model, versionOrAlias);
      const stored = this.#stored(model);
      const isLast = this.#versionsOf(model).length === 1;
      this.#refuseServed(version, isLast);
      const rest = Object.entries(stored?.aliases ?? {}).filter(([, number]) => number !== version.version);
      await this.#changes.write(
        [
          { type: 'delete', kind: 'model_version', key: `${model}@${version.version}` },
          isLast || stored === undefined
            ? { type: 'delete', kind: 'model', key: model }
            : putModel({ ...stored, aliases: Object.fromEntries(rest) }),
        ],
        { kind: 'model', name: model },
      );
      await this.#removeUnusedArtifact(this.#artifactOf(version));
    });
  }

  #store(
    name: string,
    path: string,
    found: ModelInspection,
    options: RegisterOptions,
  ): Promise<ModelVersion> {
    return this.#changes.inTurn(async () => {
      this.#refuseOtherTask(name, found.task);
      const artifact = await storeArtifact(found.files ?? path, this.#artifactsDir, {
        isOurs: found.files !== undefined,
        countsAllFiles: found.engine === 'module',
        ...(found.mainFile === undefined ? {} : { mainFile: found.mainFile }),
      });
      try {
        return await this.#write(name, artifact, found, options);
      } catch (error) {
        await this.#removeUnusedArtifact(artifactName(artifact.source));
        throw error;
      }
    });
  }

  async #write(
    name: string,
    artifact: StoredArtifact,
    found: ModelInspection,
    options: RegisterOptions,
  ): Promise<ModelVersion> {
    const known = this.#stored(name);
    const nowMs = this.#options.clock.now();
    const number = (known?.lastVersion ?? 0) + 1;
    const version: ModelVersion = {
      model: name,
      version: String(number),
      engine: found.engine,
      task: found.task,
      ...artifact,
      ...(found.signature === undefined ? {} : { signature: found.signature }),
      ...(found.dimensions === undefined ? {} : { dimensions: found.dimensions }),
      ...(options.licence === undefined ? {} : { licence: options.licence }),
      ...(options.description === undefined ? {} : { description: options.description }),
      options: { ...found.options, ...options.options },
      createdAtMs: nowMs,
    };
    const model: StoredModel = {
      name,
      description: known?.description || (options.description ?? ''),
      aliases: {
        ...known?.aliases,
        ...(options.alias === undefined ? {} : { [options.alias]: version.version }),
      },
      createdAtMs: known?.createdAtMs ?? nowMs,
      lastVersion: number,
    };
    const changes = [putModelVersion(version), putModel(model)];
    if ((options.createsEndpoint ?? true) && !this.#contents.endpoints.has(name)) {
      changes.push(
        putEndpoint({
          ...newEndpoint(name, options.principal ?? LOCAL_OWNER, nowMs),
          task: version.task,
          servedEntities: [{ name, id: newId(), entityName: name }],
          routes: [{ servedEntityName: name, trafficPercentage: 100 }],
        }),
      );
    }
    await this.#changes.write(changes, { kind: 'model', name });
    return this.#contents.findVersion(name, version.version);
  }

  /** Embedded models are not stored. */
  #stored(name: string): StoredModel | undefined {
    const model = this.#contents.models.get(name);
    return model !== undefined && 'lastVersion' in model ? (model as StoredModel) : undefined;
  }

  #versionsOf(name: string): ModelVersion[] {
    return [...(this.#contents.versions.get(name)?.values() ?? [])];
  }

  #refuseEmbedded(name: string): void {
    const isEmbedded = this.#contents.models.has(name) && this.#stored(name) === undefined;
    if (!isEmbedded && !name.startsWith(EMBEDDED_PREFIX)) return;
    throw new ServingError(
      'RESOURCE_CONFLICT',
      `Model '${name}' is built in and cannot be changed. Register a model of your own under another name.`,
    );
  }

  #refuseOtherTask(name: string, task: Task): void {
    const other = this.#versionsOf(name).find((known) => known.task !== task);
    if (other === undefined) return;
    throw new ServingError(
      'INVALID_PARAMETER',
      `The new version of '${name}' would have the task ${task}, but version ${other.version} has ${other.task}. Register it under another name.`,
    );
  }

  #refuseServed({ model, version }: ModelVersion, isLast: boolean): void {
    for (const endpoint of this.#contents.endpointsOf(model)) {
      for (const { entityName, entityVersion } of endpoint.servedEntities) {
        if (entityName !== model) continue;
        const isNewest = entityVersion === undefined || entityVersion === 'latest';
        const isServed = isNewest
          ? isLast
          : this.#contents.findVersion(model, entityVersion).version === version;
        if (!isServed) continue;
        throw new ServingError(
          'RESOURCE_CONFLICT',
          `Version ${version} of '${model}' is served by endpoint '${endpoint.name}'. Delete or change the endpoint first.`,
        );
      }
    }
  }

  async #removeUnusedArtifact(name: string): Promise<void> {
    for (const versions of this.#contents.versions.values()) {
      for (const version of versions.values()) if (this.#artifactOf(version) === name) return;
    }
    try {
      await removeArtifact(name, this.#artifactsDir);
    } catch (error) {
      this.#options.log.warn(
        { err: error, path: join(this.#artifactsDir, name) },
        'files of a deleted model remain',
      );
    }
  }

  #artifactOf({ source }: ModelVersion): string {
    return artifactName(relative(this.#artifactsDir, source).split(sep).join('/'));
  }
}

/** The members that are there. */
function pick<T extends object, K extends keyof T>(from: T, ...names: readonly K[]): Pick<T, K> {
  return Object.fromEntries(
    names.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])),
  ) as Pick<T, K>;
}

function parseAlias(alias: string): void {
  parseName(alias, 'The alias');
  if (alias === 'latest' || /^\d+$/.test(alias)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The alias '${alias}' is taken: numbers and 'latest' mean versions. Choose a word such as 'champion'.`,
    );
  }
}
