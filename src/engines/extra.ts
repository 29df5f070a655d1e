// Fields that clients of the OpenAI API send, sorted for providers that speak something else: a provider refuses
// fields it does not know. What is none of these names was meant for the provider and goes on as it is.
import type { JsonObject } from '#core/json.ts';

/** Fields of the OpenAI API and of local servers like it that are no parameters of a call of ours. */
const OPENAI_FIELDS: ReadonlySet<string> = new Set(
  `n logprobs top_logprobs stream_options frequency_penalty presence_penalty logit_bias user parallel_tool_calls
   reasoning_effort reasoning verbosity service_tier store metadata prediction prompt_cache_key
   prompt_cache_retention safety_identifier web_search_options modalities audio functions function_call
   thinking cache_control suffix echo best_of instruction input_type truncate encoding_format
   min_p top_a typical_p tfs_z repetition_penalty repeat_penalty repeat_last_n length_penalty min_tokens
   stop_token_ids ignore_eos skip_special_tokens mirostat mirostat_tau mirostat_eta keep_alive num_ctx think
   guided_json guided_regex guided_choice guided_grammar structured_outputs grammar json_schema
   chat_template_kwargs enable_thinking add_generation_prompt continue_final_message cache_prompt id_slot
   safe_prompt random_seed transforms models provider route plugins error_behavior use_raw_prompt`.split(
    /\s+/,
  ),
);

/** `extra` without the fields of the OpenAI API that this provider does not know by the same name. */
export function fieldsFor(
  extra: JsonObject | undefined,
  known: ReadonlySet<string>,
): Readonly<Record<string, JsonObject[string]>> {
  if (extra === undefined) return {};
  return Object.fromEntries(
    Object.entries(extra).filter(([name]) => known.has(name) || !OPENAI_FIELDS.has(name)),
  );
}
