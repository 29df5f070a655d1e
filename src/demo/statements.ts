// The SQL of the demo. Every statement can be typed into `duckserve shell` afterwards as it stands here.

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** Headers off, HTML tags and transfer encodings off, white space to single blanks: enough to read a mail by. */
export const loadMails = (directory: string): string => `
CREATE OR REPLACE TABLE mails AS
WITH raw AS (
  SELECT "group" || '/' || id AS id, "group", starts_with("group", 'spam') AS is_spam, replace(text, chr(13), '') AS mail
  FROM read_json(${quote(`${directory}/*/*.json`)}, columns = {id: 'VARCHAR', "group": 'VARCHAR', text: 'VARCHAR'})
), parts AS (
  SELECT id, "group", is_spam,
    trim(regexp_extract(mail, '(?im)^Subject:[ \\t]*(.*)$', 1)) AS subject,
    regexp_replace(substr(mail, strpos(mail, chr(10) || chr(10)), 6000), '=\\n|=20|=09', ' ', 'g') AS body
  FROM raw
)
SELECT id, "group", is_spam, subject,
  trim(regexp_replace(regexp_replace(replace(body, '=3D', '='), '<[^>]*>|&[a-z#0-9]+;|https?://\\S+', ' ', 'g'), '[^[:print:]]+|\\s+|[-_=*]{3,}', ' ', 'g')) AS body,
  row_number() OVER (ORDER BY id) AS n
FROM parts ORDER BY id`;

export const countMails =
  'SELECT "group", count(*) AS mails, any_value(subject) AS for_example FROM mails GROUP BY ALL ORDER BY ALL';

/** An embedding endpoint and the length of its vectors. */
export interface Embedder {
  readonly endpoint: string;
  readonly dimensions: number;
}

export const embedMails = ({ endpoint, dimensions }: Embedder): string => `
CREATE OR REPLACE TABLE mail_vectors AS
SELECT id, ai_embed(${quote(endpoint)}, subject || '. ' || left(body, 220))::FLOAT[${dimensions}] AS v FROM mails`;

/** Every tenth mail is an example with its label; the others are judged by their five nearest examples. */
export const judgeSpam = `
CREATE OR REPLACE TABLE judged AS
WITH examples AS (SELECT m.is_spam, v FROM mails m JOIN mail_vectors USING (id) WHERE n % 10 = 0)
SELECT m.id, any_value(m.is_spam) AS is_spam, any_value(m.subject) AS subject,
  list_sum(list_transform(arg_max(e.is_spam, array_cosine_similarity(q.v, e.v), 5), lambda x: x::INT)) >= 3 AS judged_spam
FROM mails m JOIN mail_vectors q USING (id), examples e WHERE m.n % 10 <> 0 GROUP BY m.id`;

export const spamTable = `
SELECT CASE WHEN is_spam THEN 'spam' ELSE 'not spam' END AS truth,
  count(*) FILTER (NOT judged_spam) AS judged_not_spam, count(*) FILTER (judged_spam) AS judged_spam,
  round(100 * avg((is_spam = judged_spam)::INT), 1) AS percent_right
FROM judged GROUP BY is_spam ORDER BY is_spam`;

export const accuracy =
  'SELECT round(100 * avg((is_spam = judged_spam)::INT), 1) AS percent, count(*) AS mails FROM judged';

export const similarMails = (question: string, { endpoint, dimensions }: Embedder): string => `
SELECT round(array_cosine_similarity(v, ai_embed(${quote(endpoint)}, ${quote(question)})::FLOAT[${dimensions}]), 2) AS similarity, "group", subject, left(body, 70) AS begins
FROM mails JOIN mail_vectors USING (id) ORDER BY similarity DESC LIMIT 10`;

export const TOPICS = [
  'computers and software',
  'money and loans',
  'health and medicine',
  'politics and news',
  'sex and dating',
  'everyday chat',
];

export const topicsByGroup = ({ endpoint }: Embedder): string => `
PIVOT (
  SELECT "group", ai_classify(subject || '. ' || left(body, 220), [${TOPICS.map(quote).join(', ')}], endpoint => ${quote(endpoint)}) AS topic FROM mails
) ON topic USING count(*) GROUP BY "group" ORDER BY "group"`;

export const loadPenguins = (file: string): string =>
  `CREATE OR REPLACE TABLE penguins AS SELECT * FROM read_csv(${quote(file)})`;

const FEATURES =
  "{'bill_length_mm': bill_length_mm, 'bill_depth_mm': bill_depth_mm, 'flipper_length_mm': flipper_length_mm, 'body_mass_g': body_mass_g}";

export const predictPenguins = `
SELECT species AS truth, predict('penguins', ${FEATURES}) AS predicted, count(*) AS penguins
FROM penguins WHERE split = 'test' GROUP BY ALL ORDER BY ALL`;

export const penguinAccuracy = `
SELECT round(100 * avg((species = predict('penguins', ${FEATURES}))::INT), 1) AS percent, count(*) AS penguins FROM penguins WHERE split = 'test'`;

/** Three short mails: a question, a notice, an advertisement. */
export const pickMails = `
CREATE OR REPLACE TABLE picked AS
SELECT id, subject, left(body, 260) AS body FROM mails WHERE id IN ('easy-ham-1/00030', 'easy-ham-1/02210', 'spam-1/00001') ORDER BY id`;

/** The text first and the task last: small models lose the task over a long text. */
const mailThen = (task: string): string =>
  `'E-mail with the subject "' || subject || '":' || chr(10) || body || chr(10) || chr(10) || ${quote(task)}`;

export const summarize = (endpoint: string): string => `
SELECT subject, ai_query(${quote(endpoint)},
  'Text: ' || body || chr(10) || 'What is this text about? Answer in one short sentence that begins with "It is about".',
  modelParameters => {'max_tokens': 40, 'stop': [chr(10)]}) AS summary
FROM picked`;

export const extract = (endpoint: string): string => `
SELECT subject, unnest(ai_query(${quote(endpoint)}, ${mailThen('Write a JSON object about this e-mail with its topic, the name of a person or company in it, and a mood.')},
  responseFormat => 'STRUCT<topic: STRING, name: STRING, mood: STRING>', modelParameters => {'max_tokens': 64}))
FROM picked`;
