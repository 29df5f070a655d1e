// Entries of an access list: checked before they are kept, merged, and shown with what follows from the rules.
// Not here: what they mean for a request (access).
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { ADMINISTRATORS, EVERYBODY, PERMISSION_LEVELS } from '../access.ts';
import {
  checkName,
  type GroupRecord,
  type PermissionEntry,
  type PermissionHolder,
  type PrincipalRecord,
  shown,
} from './records.ts';

export interface KnownNames {
  readonly principals: ReadonlyMap<string, PrincipalRecord>;
  readonly groups: ReadonlyMap<string, GroupRecord>;
  /** An issuer of JWTs knows principals that are not kept here. */
  readonly isOthersKnown: boolean;
}

/** `isFixed`: it follows from the rules and cannot be taken away. */
export interface ShownEntry extends PermissionEntry {
  readonly isFixed: boolean;
}

const MOST_ENTRIES = 1_000;
const WORDS: Readonly<Record<PermissionHolder, string>> = {
  user: 'user',
  group: 'group',
  service_principal: 'service principal',
};

/** The entries to keep: those of the creator and the administrators are left out, as they follow from the rules. */
export function parseEntries(
  endpoint: Endpoint,
  entries: readonly PermissionEntry[],
  known: KnownNames,
): readonly PermissionEntry[] {
  if (endpoint.isEmbedded) {
    throw new ServingError(
      'RESOURCE_CONFLICT',
      `Endpoint '${endpoint.name}' is built in: everybody may query it, and that cannot be changed.`,
    );
  }
  if (entries.length > MOST_ENTRIES) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The access list has ${entries.length} entries; it takes ${MOST_ENTRIES} at most. Use groups.`,
    );
  }
  const checked = entries.map((entry) => checkEntry(entry, known));
  const seen = new Set<string>();
  for (const { kind, name } of checked) {
    if (seen.size === seen.add(`${kind} ${name}`).size) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `The access list names the ${WORDS[kind]} '${name}' twice.`,
      );
    }
  }
  return checked.filter((entry) => !isFixedFor(endpoint, entry));
}

/** `changes` replace entries of the same principal. */
export function mergeEntries(
  entries: readonly PermissionEntry[],
  changes: readonly PermissionEntry[],
): readonly PermissionEntry[] {
  const merged = new Map(entries.map((entry) => [`${entry.kind} ${entry.name}`, entry]));
  for (const entry of changes) merged.set(`${entry.kind} ${entry.name}`, entry);
  return [...merged.values()];
}

/** As it is shown: the creator and the administrators first. */
export function entriesOf(
  endpoint: Endpoint,
  entries: readonly PermissionEntry[],
  principals: ReadonlyMap<string, PrincipalRecord>,
): readonly ShownEntry[] {
  const administrators = { kind: 'group', name: ADMINISTRATORS, level: 'CAN_MANAGE', isFixed: true } as const;
  if (endpoint.isEmbedded) {
    return [administrators, { kind: 'group', name: EVERYBODY, level: 'CAN_QUERY', isFixed: true }];
  }
  const kind = principals.get(endpoint.creator)?.kind ?? 'user';
  return [
    { kind, name: endpoint.creator, level: 'CAN_MANAGE', isFixed: false },
    administrators,
    ...entries.map((entry) => ({ ...entry, isFixed: false })),
  ];
}

function checkEntry(entry: PermissionEntry, known: KnownNames): PermissionEntry {
  const { kind, level } = entry;
  const name = checkName(WORDS[kind], entry.name);
  if (!PERMISSION_LEVELS.includes(level)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'permission_level' of '${name}' is ${shown(level)}; it takes ${PERMISSION_LEVELS.join(', ')}.`,
    );
  }
  if (kind === 'group') checkGroup(name, known);
  else checkPrincipal(kind, name, known);
  return { kind, name, level };
}

function checkGroup(name: string, { groups, isOthersKnown }: KnownNames): void {
  if (groups.has(name) || isOthersKnown || name === ADMINISTRATORS || name === EVERYBODY) return;
  throw new ServingError(
    'NOT_FOUND',
    `There is no group '${name}'. Put somebody into it first: duckserve tokens create --principal NAME --group ${name}. Everybody is in '${EVERYBODY}'.`,
  );
}

function checkPrincipal(
  kind: 'user' | 'service_principal',
  name: string,
  { principals, isOthersKnown }: KnownNames,
): void {
  const record = principals.get(name);
  if (record?.kind === kind || (record === undefined && isOthersKnown)) return;
  if (record !== undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'${name}' is a ${WORDS[record.kind]}, not a ${WORDS[kind]}: name it in '${record.kind}_name'.`,
    );
  }
  throw new ServingError(
    'NOT_FOUND',
    `There is no ${WORDS[kind]} '${name}'. Give them a token first: duckserve tokens create --principal ${name}.`,
  );
}

/** Clients send back what they were shown. Throws where they want less than the rules give. */
function isFixedFor(endpoint: Endpoint, { kind, name, level }: PermissionEntry): boolean {
  const isFixed = kind === 'group' ? name === ADMINISTRATORS : name === endpoint.creator;
  if (!isFixed || level === 'CAN_MANAGE') return isFixed;
  const who = kind === 'group' ? `The group '${ADMINISTRATORS}'` : `'${name}', the creator of the endpoint,`;
  throw new ServingError('INVALID_PARAMETER', `${who} always has CAN_MANAGE: leave it out.`);
}
