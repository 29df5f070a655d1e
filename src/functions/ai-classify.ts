// ai_classify: one of the given labels for a text. On a chat endpoint the model picks under a schema that
// allows nothing else; on an embedding endpoint the label nearest in meaning wins. Mirrors Databricks' v1.
import type { AnswerItem, ChatOutput, EmbeddingOutput, Parameters } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import { embeddingQuestion } from './ai-embed.ts';
import { cosine } from './ai-similarity.ts';
import {
  type AiFunction,
  cacheModeOf,
  NULL_VALUE,
  outputOf,
  type Plan,
  type PlanContext,
  requireText,
  textOf,
} from './function.ts';

const MAX_LABELS = 500;

export const aiClassify: AiFunction = {
  name: '__ai_classify',
  returns: 'VARCHAR',
  subject: 0,
  plan([content, labelList, endpoint, cache], context) {
    if (content == null) return NULL_VALUE;
    const labels = labelsFrom(labelList ?? null);
    const name =
      endpoint == null
        ? context.defaultEndpoint('classify')
        : requireText(endpoint, 'endpoint', 'ai_classify');
    const { task } = context.describe(name);
    if (task === 'llm/v1/embeddings')
      return bySimilarity(textOf(content), labels, name, cache ?? null, context);
    if (task === 'llm/v1/chat') return byChat(textOf(content), labels, name, cache ?? null, context);
    throw new ServingError(
      'WRONG_TASK',
      `ai_classify: endpoint '${name}' serves ${task}; it needs one that serves llm/v1/chat or llm/v1/embeddings.`,
    );
  },
};

function labelsFrom(value: Json): readonly string[] {
  const labels = Array.isArray(value) ? value : null;
  const isUsable =
    labels !== null &&
    labels.length >= 2 &&
    labels.length <= MAX_LABELS &&
    labels.every((label) => typeof label === 'string' && label.trim() !== '');
  if (isUsable) return labels as readonly string[];
  throw new ServingError(
    'INVALID_PARAMETER',
    `ai_classify: labels must be a list of 2 to ${MAX_LABELS} texts such as ['bug', 'other'], they are ${JSON.stringify(value)?.slice(0, 200)}.`,
  );
}

function bySimilarity(
  content: string,
  labels: readonly string[],
  endpoint: string,
  cache: Json,
  context: PlanContext,
): Plan {
  const texts = [content, ...labels];
  return {
    questions: texts.map((text) => embeddingQuestion(endpoint, text, cache, context, 'ai_classify')),
    finish(items) {
      const [vector, ...labelVectors] = items.map((item) => outputOf<EmbeddingOutput>(item).embedding);
      let best = -1;
      let bestCosine = Number.NEGATIVE_INFINITY;
      labelVectors.forEach((labelVector, index) => {
        const similarity = cosine(vector as Float32Array, labelVector);
        if (similarity > bestCosine) {
          bestCosine = similarity;
          best = index;
        }
      });
      return labels[best] ?? null;
    },
  };
}

interface LabelPrompt {
  readonly system: string;
  readonly parameters: Parameters;
}

/** The labels are a constant of the statement: their prompt and schema are made once. */
const prompts = new Map<string, LabelPrompt>();

function promptFor(labels: readonly string[]): LabelPrompt {
  const key = JSON.stringify(labels);
  let prompt = prompts.get(key);
  if (!prompt) {
    const schema = {
      type: 'object',
      properties: { label: { type: 'string', enum: labels } },
      required: ['label'],
      additionalProperties: false,
    };
    prompt = {
      system: `Classify the text of the user. Answer with exactly one of these labels:\n${labels.map((label) => `- ${label}`).join('\n')}`,
      parameters: {
        temperature: 0,
        responseFormat: { type: 'json_schema', name: 'classification', strict: true, schema },
      },
    };
    if (prompts.size > 1_000) prompts.clear();
    prompts.set(key, prompt);
  }
  return prompt;
}

function byChat(
  content: string,
  labels: readonly string[],
  endpoint: string,
  cache: Json,
  context: PlanContext,
): Plan {
  const { system, parameters } = promptFor(labels);
  const messages = [
    { role: 'system' as const, content: system },
    { role: 'user' as const, content },
  ];
  const question = {
    endpoint,
    task: 'llm/v1/chat' as const,
    cache: cacheModeOf(cache, context.cache, 'ai_classify'),
    parameters,
    input: { messages },
  };
  return { questions: [question], finish: ([item]) => chosenLabel(item, labels) };
}

function chosenLabel(item: AnswerItem | undefined, labels: readonly string[]): string {
  const text = outputOf<ChatOutput>(item).content ?? '';
  let answer: Json = text;
  try {
    answer = JSON.parse(text) as Json;
  } catch {
    // A model that ignores the schema answers the label alone.
  }
  const label = isJsonObject(answer) ? answer.label : answer;
  const wanted = typeof label === 'string' ? label.trim().toLowerCase() : '';
  const match = labels.find((candidate) => candidate.trim().toLowerCase() === wanted);
  if (match !== undefined) return match;
  throw new ServingError(
    'INVALID_RESPONSE',
    `ai_classify: the model answered ${JSON.stringify(text.slice(0, 120))}, which is none of the labels ${JSON.stringify(labels)}.`,
  );
}
