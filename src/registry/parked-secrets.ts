// Keys that arrive in the clear: put into the secret store under a name of their own, replaced by a reference, and
// removed when no endpoint refers to them any more. Nothing here is ever shown or logged.
import { randomBytes } from 'node:crypto';
import type { Principal } from '#core/call.ts';
import type { Endpoint, ExternalModel, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { RegistryChange } from '#storage/registry-store.ts';
import type { SecretStore } from '#storage/secret-store.ts';
import { environmentOf } from './entity-scaling.ts';
import { SECRET_PATHS, secretAt } from './external-model-schema.ts';
import type { ServedEntitySpec } from './schemas.ts';

export type SecretKeeper = Pick<SecretStore, 'setSecret' | 'deleteSecret' | 'listSecrets'>;
export type NamedEntitySpec = ServedEntitySpec & { readonly name: string };

const SCOPE = 'endpoints';
/** Only names that end so are ours; somebody may keep secrets of their own in this scope. */
const PARKED_KEY = /\.[0-9a-f]{12}$/;
const PARKED_REFERENCE = /^\{\{\s*secrets\/endpoints\/([A-Za-z0-9_.-]+)\s*\}\}$/;

export class ParkedSecrets {
  readonly #keeper: SecretKeeper | undefined;

  constructor(keeper: SecretKeeper | undefined) {
    this.#keeper = keeper;
  }

  /** The entities with references only. What was parked is on disk; `drop` it when the change fails. */
  async park(endpoint: string, entities: readonly NamedEntitySpec[]): Promise<readonly ServedEntity[]> {
    const done: ServedEntity[] = [];
    try {
      for (const entity of entities) done.push(await this.#parkEntity(endpoint, entity));
      return done;
    } catch (error) {
      await this.drop(parkedKeys(done));
      throw error;
    }
  }

  /** Keys that `before` referred to and nothing refers to any more, as changes of the same transaction. */
  removals(before: readonly ServedEntity[], rest: Iterable<Endpoint>): readonly RegistryChange[] {
    const keys = new Set(parkedKeys(before));
    if (keys.size === 0) return [];
    for (const { servedEntities } of rest) for (const key of parkedKeys(servedEntities)) keys.delete(key);
    return [...keys].map((key) => ({ type: 'delete', kind: 'secret', key: `${SCOPE}/${key}` }));
  }

  /** After the transaction with these removals: the store of secrets forgets them too. */
  async forget(removals: readonly RegistryChange[]): Promise<void> {
    await this.drop(removals.map(({ key }) => key.slice(SCOPE.length + 1)));
  }

  async drop(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      // It may be gone already; a secret that stays behind is swept away at the next start.
      await this.#keeper?.deleteSecret(SCOPE, key).catch(() => undefined);
    }
  }

  /** At the start: keys of changes that a crash cut off. */
  async sweep(endpoints: Iterable<Endpoint>): Promise<void> {
    const used = new Set([...endpoints].flatMap(({ servedEntities }) => parkedKeys(servedEntities)));
    const parked = (this.#keeper?.listSecrets() ?? []).filter(
      ({ scope, key }) => scope === SCOPE && PARKED_KEY.test(key) && !used.has(key),
    );
    await this.drop(parked.map(({ key }) => key));
  }

  async #parkEntity(endpoint: string, entity: NamedEntitySpec): Promise<ServedEntity> {
    const { externalModel, ...rest } = entity;
    if (externalModel === undefined) return rest;
    const model = structuredClone(externalModel) as unknown as Record<string, unknown>;
    for (const path of SECRET_PATHS) {
      const value = secretAt(model, path, 'Plaintext');
      if (value === undefined) continue;
      const field = path.at(-1) ?? '';
      const at = path.length === 1 ? model : (model[path[0]] as Record<string, unknown>);
      at[field] = await this.#store(endpoint, entity.name, path.join('-'), value);
      delete at[`${field}Plaintext`];
    }
    return { ...rest, externalModel: model as unknown as ExternalModel };
  }

  async #store(endpoint: string, entity: string, field: string, value: string): Promise<string> {
    if (this.#keeper === undefined) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `The ${field} of served entity '${entity}' is in plain text, and there is no store for secrets here. Use {{env/NAME}}.`,
      );
    }
    // A new name for each value: until a change has succeeded the old one goes on being used.
    const key = `${endpoint.slice(0, 40)}.${entity.slice(0, 40)}.${field}.${randomBytes(6).toString('hex')}`;
    await this.#keeper.setSecret(SCOPE, key, value);
    return `{{secrets/${SCOPE}/${key}}}`;
  }
}

export function parkedKeys(entities: readonly ServedEntity[]): readonly string[] {
  return entities.flatMap(({ externalModel }) =>
    referencesOf(externalModel).flatMap((reference) => {
      const key = PARKED_REFERENCE.exec(reference)?.[1];
      return key !== undefined && PARKED_KEY.test(key) ? [key] : [];
    }),
  );
}

/**
 * A reference names a secret of this server, and whoever chooses the address that it is sent to can read it. So
 * only admins bring new ones; others give keys of their own in plain text, or keep what is there as it is.
 */
export function refuseForeignReferences(
  principal: Principal,
  entities: readonly ServedEntitySpec[],
  current: readonly ServedEntity[],
): void {
  if (principal.isAdmin) return;
  const known = new Set(current.flatMap(usesOfEntity));
  for (const entity of entities) {
    const foreign = usesOfEntity(entity).find((use) => !known.has(use));
    if (foreign === undefined) continue;
    const { externalModel, entityName } = entity;
    throw new ServingError(
      'PERMISSION_DENIED',
      `'${principal.name}' may not use ${foreign.split(' -> ')[0]} for model '${externalModel?.name ?? entityName}': only admins give references to secrets and environment variables of the server, or change where one is sent. Give the key itself in plain text (it is kept encrypted), or ask an admin.`,
    );
  }
}

/** A model of this machine reads what its environment holds, as code of whoever has registered it. */
function usesOfEntity(entity: ServedEntitySpec | ServedEntity): readonly string[] {
  const { externalModel, entityName, entityVersion } = entity;
  const values = Object.values(environmentOf(entity) ?? {});
  const references = values.flatMap((value) => value.match(/\{\{[^{}]*\}\}/g) ?? []);
  const place = JSON.stringify([entityName ?? null, entityVersion ?? null]);
  const own = references.map((reference) => `${reference.replaceAll(/\s/g, '')} -> ${place}`);
  return [...usesOf(externalModel), ...own];
}

type AnyModel = ServedEntitySpec['externalModel'] | ServedEntity['externalModel'];

function referencesOf(model: AnyModel): readonly string[] {
  if (model === undefined) return [];
  return SECRET_PATHS.flatMap((path) => secretAt(model, path, '') ?? []);
}

/** Each reference with every address that it can travel to. */
function usesOf(model: AnyModel): readonly string[] {
  if (model === undefined) return [];
  const place = JSON.stringify([
    model.provider,
    model.baseUrl ?? null,
    model.apiKeyHeader ?? null,
    model.entra?.authorityUrl ?? null,
    model.entra?.tenantId ?? null,
    model.bedrock?.region ?? null,
    model.vertex?.region ?? null,
  ]);
  return referencesOf(model).map((reference) => `${reference.replaceAll(/\s/g, '')} -> ${place}`);
}
