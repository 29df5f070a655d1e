// What an external model must look like, provider by provider: which fields it takes, which it needs, which tasks
// it offers. Whether a key works is known only when it is used.
import { z } from 'zod';
import type { Task } from '#core/call.ts';
import { type ExternalModel, PROVIDERS, type Provider } from '#core/endpoint.ts';

const REFERENCE = /^\{\{\s*(?:env\/[A-Za-z_][A-Za-z0-9_]*|secrets\/[A-Za-z0-9_.-]+\/[A-Za-z0-9_.-]+)\s*\}\}$/;
const EXTERNAL_TASKS = ['llm/v1/chat', 'llm/v1/completions', 'llm/v1/embeddings'] as const;
const HEADER_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$/;
/** A host of a cloud is made of it: a region must not be able to become another host. */
const REGION = /^[a-z0-9-]{1,40}$/;
const PLAIN = /^[^\p{Cc}]+$/u;

const text = z.string().min(1).max(1_024).regex(PLAIN, 'must not hold line breaks or control characters');
const count = z.int().positive();
const dollars = z.number().nonnegative();
const region = z.string().regex(REGION, 'must be the name of a region, such as us-east-1');

const url = z.string().superRefine((value, context) => {
  const parsed = URL.canParse(value) ? new URL(value) : undefined;
  if (parsed === undefined || (parsed.protocol !== 'https:' && parsed.protocol !== 'http:')) {
    context.addIssue({ code: 'custom', message: 'must be a URL that begins with https:// or http://' });
  } else if (parsed.username !== '' || parsed.password !== '') {
    context.addIssue({
      code: 'custom',
      message: 'must not hold a user name or password; use apiKey with {{env/NAME}} or {{secrets/scope/key}}',
      params: { isSecret: true },
    });
  }
});

const reference = z.string().superRefine((value, context) => {
  if (REFERENCE.test(value)) return;
  context.addIssue({
    code: 'custom',
    message:
      'must be a reference, {{env/NAME}} or {{secrets/scope/key}}; a key itself goes into the field of the same name that ends in plaintext, and is kept encrypted',
    params: { isSecret: true },
  });
});

/** The key itself: on its way into the secret store, never kept here. Service accounts are JSON of a few kilobytes. */
const plaintext = z.string().min(1).max(65_536);

/** Where an external model holds secrets; each has a twin `...Plaintext` in a specification. */
export const SECRET_PATHS: readonly (readonly [string] | readonly [string, string])[] = [
  ['apiKey'],
  ['entra', 'clientSecret'],
  ['bedrock', 'accessKeyId'],
  ['bedrock', 'secretAccessKey'],
  ['bedrock', 'sessionToken'],
  ['vertex', 'privateKey'],
];

interface ProviderRules {
  readonly tasks: readonly Task[];
  readonly takes: readonly (keyof ExternalModel)[];
  readonly needs?: readonly (keyof ExternalModel)[];
}

const ALL_TASKS = EXTERNAL_TASKS;
const RULES: Readonly<Record<Provider, ProviderRules>> = {
  openai: {
    tasks: ALL_TASKS,
    takes: ['baseUrl', 'apiKey', 'organization', 'apiType', 'apiVersion', 'deployment', 'entra'],
  },
  anthropic: { tasks: ['llm/v1/chat'], takes: ['baseUrl', 'apiKey'] },
  cohere: { tasks: ALL_TASKS, takes: ['baseUrl', 'apiKey'] },
  'amazon-bedrock': { tasks: ALL_TASKS, takes: ['baseUrl', 'bedrock'], needs: ['bedrock'] },
  'google-cloud-vertex-ai': { tasks: ALL_TASKS, takes: ['baseUrl', 'vertex'], needs: ['vertex'] },
  'databricks-model-serving': { tasks: ALL_TASKS, takes: ['baseUrl', 'apiKey'], needs: ['baseUrl'] },
  custom: { tasks: ALL_TASKS, takes: ['baseUrl', 'apiKey', 'apiKeyHeader'], needs: ['baseUrl'] },
};
const OWN_FIELDS = [...new Set(Object.values(RULES).flatMap(({ takes }) => takes))];

const secret = { reference: reference.optional(), plaintext: plaintext.optional() };

export const externalModelSchema = z
  .strictObject({
    name: text.max(256),
    provider: z.enum(PROVIDERS),
    task: z.enum(EXTERNAL_TASKS),
    baseUrl: url.optional(),
    apiKey: secret.reference,
    apiKeyPlaintext: secret.plaintext,
    organization: text.optional(),
    apiType: z.enum(['openai', 'azure', 'azuread']).optional(),
    apiVersion: text.optional(),
    deployment: text.optional(),
    entra: z
      .strictObject({
        tenantId: z.string().regex(/^[A-Za-z0-9.-]{1,128}$/, 'must be the id or domain of a tenant'),
        clientId: text,
        clientSecret: secret.reference,
        clientSecretPlaintext: secret.plaintext,
        authorityUrl: url.optional(),
      })
      .optional(),
    bedrock: z
      .strictObject({
        region,
        modelProvider: z.enum(['anthropic', 'cohere', 'ai21labs', 'amazon', 'grok']),
        accessKeyId: secret.reference,
        accessKeyIdPlaintext: secret.plaintext,
        secretAccessKey: secret.reference,
        secretAccessKeyPlaintext: secret.plaintext,
        sessionToken: secret.reference,
        sessionTokenPlaintext: secret.plaintext,
      })
      .optional(),
    vertex: z
      .strictObject({
        projectId: z.string().regex(/^[A-Za-z0-9:._-]{1,128}$/, 'must be the id of a project'),
        region,
        privateKey: secret.reference,
        privateKeyPlaintext: secret.plaintext,
      })
      .optional(),
    apiKeyHeader: z.string().regex(HEADER_NAME, 'must be the name of an HTTP header').optional(),
    maxConcurrency: count.max(10_000).optional(),
    timeoutMs: count.max(24 * 60 * 60 * 1_000).optional(),
    price: z.strictObject({ inputPerMillion: dollars, outputPerMillion: dollars }).optional(),
  })
  .superRefine((model, context) => {
    const refuse = (path: readonly string[], message: string) =>
      context.addIssue({ code: 'custom', path: [...path], message });
    const rules = RULES[model.provider];
    if (!rules.tasks.includes(model.task)) {
      refuse(['task'], `must be ${rules.tasks.join(' or ')}; ${model.provider} offers nothing else`);
    }
    for (const field of OWN_FIELDS) {
      const isGiven =
        model[field] !== undefined || (field === 'apiKey' && model.apiKeyPlaintext !== undefined);
      if (isGiven && !rules.takes.includes(field))
        refuse([field], `does not go with provider ${model.provider}`);
    }
    for (const field of rules.needs ?? []) {
      if (model[field] === undefined) refuse([field], `is needed for provider ${model.provider}`);
    }
    refuseSecretsTwice(model, refuse);
    refuseIncomplete(model, refuse);
  });

/** An external model as it is specified: with keys in the clear beside their references. */
export type ExternalModelSpec = z.output<typeof externalModelSchema>;
type Refuse = (path: readonly string[], message: string) => void;

/** The reference or the key itself at a path of `SECRET_PATHS`. */
export function secretAt(
  model: object,
  path: readonly string[],
  suffix: '' | 'Plaintext',
): string | undefined {
  const [first = '', second] = path;
  const at = (object: unknown, key: string) => (object as Record<string, unknown> | undefined)?.[key];
  const found =
    second === undefined ? at(model, `${first}${suffix}`) : at(at(model, first), `${second}${suffix}`);
  return typeof found === 'string' ? found : undefined;
}

function refuseSecretsTwice(model: ExternalModelSpec, refuse: Refuse): void {
  for (const path of SECRET_PATHS) {
    const isTwice =
      secretAt(model, path, '') !== undefined && secretAt(model, path, 'Plaintext') !== undefined;
    if (isTwice) refuse(path, 'is given twice: as a reference and in plain text; give exactly one of them');
  }
}

function refuseIncomplete(model: ExternalModelSpec, refuse: Refuse): void {
  const has = (...path: string[]) =>
    secretAt(model, path, '') !== undefined || secretAt(model, path, 'Plaintext') !== undefined;
  const isAzure = model.apiType === 'azure' || model.apiType === 'azuread';
  if (isAzure && model.baseUrl === undefined) {
    refuse(['baseUrl'], `is needed with apiType ${model.apiType}: the URL of the resource`);
  }
  if (model.apiType === 'azuread' && model.entra === undefined) {
    refuse(['entra'], 'is needed with apiType azuread: tenantId, clientId and clientSecret');
  }
  if (model.entra !== undefined && model.apiType !== 'azuread') {
    refuse(['entra'], 'goes only with apiType azuread');
  }
  if (model.entra !== undefined && !has('entra', 'clientSecret')) {
    refuse(['entra', 'clientSecret'], 'is needed, as a reference or in plain text');
  }
  if (model.bedrock !== undefined && has('bedrock', 'accessKeyId') !== has('bedrock', 'secretAccessKey')) {
    const missing = has('bedrock', 'accessKeyId') ? 'secretAccessKey' : 'accessKeyId';
    refuse(['bedrock', missing], 'is needed beside the other half of the key');
  }
  if (model.vertex !== undefined && !has('vertex', 'privateKey')) {
    refuse(
      ['vertex', 'privateKey'],
      'is needed, as a reference or in plain text: the JSON of a service account',
    );
  }
  if (model.provider === 'databricks-model-serving' && !has('apiKey')) {
    refuse(['apiKey'], 'is needed, as a reference or in plain text: a token of the workspace');
  }
}
