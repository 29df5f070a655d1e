// A provider that refuses, fails, hangs up and talks nonsense: every row is answered or has a typed error, the
// answers are those of a serial reference, and the books agree with the provider's own.
import { stubChatText } from '../../test/stub/answers.ts';
import { runPart } from '../parts.ts';
import { promise } from '../report.ts';
import {
  createStubEndpoint,
  numberOf,
  openPlace,
  type Place,
  placeIn,
  rowsOf,
  type Scenario,
  scaled,
  timed,
} from '../scenario.ts';

const LATENCY_MS = 50;
const CONCURRENCY = 256;
const TYPED = /^[A-Z_]+: ./;

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly rows: number;
}
interface Outcome {
  readonly seconds: number;
  readonly rowCount: number;
  readonly right: number;
  readonly wrong: number;
  readonly untyped: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly attempts: number;
  readonly usageRows: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export async function askAll({ place, baseUrl, rows }: Args): Promise<Outcome> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, CONCURRENCY);
  const session = await app.openSession();
  await session.run(`CREATE TABLE t AS SELECT i AS id, 'question ' || i AS body FROM range(${rows}) t(i)`);
  const sql = "SELECT body, ai_query('stub', body, failOnError => false) AS answer FROM t ORDER BY id";
  const { result, seconds } = await timed(session, sql);
  const errors: Record<string, number> = {};
  let [right, wrong, untyped] = [0, 0, 0];
  for (const [body, answer] of result.rows()) {
    const { response, errorMessage } = answer as { response: string | null; errorMessage: string | null };
    if (response !== null && errorMessage === null) {
      if (response === stubChatText(String(body))) right++;
      else wrong++;
    } else if (response === null && errorMessage !== null && TYPED.test(errorMessage)) {
      const code = errorMessage.split(':', 1)[0] ?? '';
      errors[code] = (errors[code] ?? 0) + 1;
    } else untyped++;
  }
  const usage = "FROM duckserve.usage WHERE endpoint = 'stub'";
  const [tokens] = await rowsOf(session, `SELECT sum(input_tokens), sum(output_tokens), count(*) ${usage}`);
  const attempts = await numberOf(session, `SELECT sum(attempts) ${usage}`);
  await app.close();
  const [inputTokens, outputTokens, usageRows] = (tokens ?? []).map(Number);
  return {
    seconds,
    rowCount: result.rowCount,
    right,
    wrong,
    untyped,
    errors,
    attempts,
    usageRows: usageRows ?? 0,
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? 0,
  };
}

export const scenario: Scenario = {
  about: '10,000 texts at a provider with 20 % 429, 5 % 500, 2 % cut connections and 1 % malformed answers',
  async run(context) {
    const rows = scaled(context, 10_000, 100);
    const rates = {
      rate429: 0.2,
      rate500: 0.05,
      'rate-cut': 0.02,
      'rate-malformed': 0.01,
      'retry-after-ms': 20,
    };
    const stub = await context.startStub({ 'latency-ms': LATENCY_MS, ...rates });
    const { value, peakRssMb } = await runPart(import.meta.url, askAll, {
      place: placeIn(context.directory),
      baseUrl: stub.openaiUrl,
      rows,
    });
    const ledger = await stub.ledger();
    const failed = Object.values(value.errors).reduce((sum, count) => sum + count, 0);
    const byKind = Object.entries(ledger.byMisbehaviour).map(([kind, count]) => `${kind} ${count}`);
    const byCode = Object.entries(value.errors).map(([code, count]) => `${code} ${count}`);
    return {
      figures: [
        {
          name: 'time',
          value: value.seconds,
          unit: 's',
          against: {
            name: 'latency x requests / concurrency',
            value: (ledger.requests / CONCURRENCY) * (LATENCY_MS / 1_000),
          },
        },
        { name: 'requests', value: ledger.requests, unit: '', against: { name: 'texts', value: rows } },
        {
          name: 'most in flight',
          value: ledger.peakInFlight,
          unit: '',
          against: { name: 'endpoint limit', value: CONCURRENCY },
        },
        { name: 'rows with a typed error', value: failed, unit: '', against: { name: 'rows', value: rows } },
      ],
      promises: [
        promise('every row is there', value.rowCount === rows, `${value.rowCount} of ${rows}`),
        promise(
          'every row has an answer or a typed error',
          value.untyped === 0,
          `${value.untyped} have neither`,
        ),
        promise(
          'every answer equals that of a serial reference',
          value.wrong === 0,
          `${value.right} equal, ${value.wrong} differ`,
        ),
        promise(
          'attempts in the books are the requests of the provider',
          value.attempts === ledger.requests,
          `${value.attempts} and ${ledger.requests}`,
        ),
        promise(
          'tokens in the books are those of the provider',
          value.inputTokens === ledger.promptTokens && value.outputTokens === ledger.completionTokens,
          `${value.inputTokens} + ${value.outputTokens} and ${ledger.promptTokens} + ${ledger.completionTokens}`,
        ),
      ],
      notes: [
        `the stub misbehaved: ${byKind.join(', ')}`,
        `errors: ${byCode.join(', ') || 'none'}; ${value.usageRows} usage rows`,
      ],
      peakRssMb: { process: peakRssMb },
    };
  },
};
