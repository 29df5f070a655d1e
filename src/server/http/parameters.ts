// Sampling parameters and provider fields, as chat and completions spell them on the wire.
import { z } from 'zod';
import type { Parameters } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { MAX_CHOICES } from './choices.ts';
import { parseWith } from './errors.ts';

export const samplingFields = {
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(1).nullish(),
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  seed: z.int().nullish(),
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  logprobs: z.union([z.boolean(), z.int()]).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
};
type SamplingFields = z.output<z.ZodObject<typeof samplingFields>>;

/**
 * Fields of known providers that are passed on as they are when a client sends them. What is in neither this
 * list nor a task's own fields is not sent on, because providers refuse requests with fields they do not know;
 * `extra_params` sends any field. Names left out are listed in the answer header x-duckserve-ignored.
 */
export const PROVIDER_FIELDS: ReadonlySet<string> = new Set(
  `frequency_penalty presence_penalty logit_bias user parallel_tool_calls reasoning_effort reasoning verbosity
   service_tier store metadata prediction prompt_cache_key prompt_cache_retention safety_identifier
   web_search_options thinking cache_control suffix echo best_of instruction input_type truncate
   min_p top_a typical_p tfs_z repetition_penalty repeat_penalty repeat_last_n length_penalty min_tokens
   stop_token_ids ignore_eos skip_special_tokens mirostat mirostat_tau mirostat_eta keep_alive num_ctx think
   guided_json guided_regex guided_choice guided_grammar structured_outputs grammar json_schema
   chat_template_kwargs enable_thinking add_generation_prompt continue_final_message cache_prompt id_slot
   safe_prompt random_seed transforms models provider route plugins error_behavior use_raw_prompt`.split(
    /\s+/,
  ),
);

interface ParsedBody<T extends z.ZodObject> {
  readonly fields: z.output<T>;
  /** Provider fields to pass on; undefined where there are none. */
  readonly extra: JsonObject | undefined;
  /** Header of the answer that names the fields which were not understood and go nowhere. */
  readonly headers: Record<string, string>;
}

/** Checks a body against the fields of its task and sorts out the rest. */
export function parseBody<T extends z.ZodObject>(schema: T, body: JsonObject): ParsedBody<T> {
  const fields = parseWith(schema, body);
  const extra: Record<string, Json> = {};
  const ignored: string[] = [];
  for (const [name, value] of Object.entries(body)) {
    if (Object.hasOwn(schema.shape, name)) continue;
    if (PROVIDER_FIELDS.has(name)) extra[name] = value;
    else ignored.push(name);
  }
  const all = { ...extra, ...(fields as { readonly extra_params?: JsonObject | null }).extra_params };
  return {
    fields,
    extra: Object.keys(all).length === 0 ? undefined : all,
    headers: ignoredHeaders(ignored),
  };
}

export function ignoredHeaders(ignored: readonly string[]): Record<string, string> {
  // Field names come from outside: only what cannot break a header line is repeated.
  const names = ignored.filter((name) => /^[\w.-]{1,64}$/.test(name)).slice(0, 20);
  return names.length === 0 ? {} : { 'x-duckserve-ignored': names.join(', ') };
}

export function toParameters(fields: SamplingFields, extra: JsonObject | undefined): Parameters {
  refuseLogprobs(fields);
  const maxTokens = fields.max_completion_tokens ?? fields.max_tokens ?? undefined;
  const stop = typeof fields.stop === 'string' ? [fields.stop] : (fields.stop ?? undefined);
  return withoutUndefined({
    maxTokens,
    temperature: fields.temperature ?? undefined,
    topP: fields.top_p ?? undefined,
    topK: fields.top_k ?? undefined,
    stop,
    seed: fields.seed ?? undefined,
    extra,
  });
}

/** The answer would lack what was asked for: better refused than quietly not given. */
function refuseLogprobs(fields: SamplingFields): void {
  if (fields.logprobs !== undefined && fields.logprobs !== null && fields.logprobs !== false) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'logprobs' is ${fields.logprobs}, and answers carry no log probabilities: leave it out.`,
    );
  }
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** Members that are undefined become absent: under exactOptionalPropertyTypes these differ. */
export function withoutUndefined<T extends object>(members: T): Defined<T> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as Defined<T>;
}
