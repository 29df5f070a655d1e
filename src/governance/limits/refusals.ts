// What is said to whom a limit refuses: which limit, what is used of it, when to come back.
import { ServingError } from '#core/errors.ts';
import { type GaugeFacts, type MoneyGauge, NANO, type RateGauge } from './gauge.ts';

/** A budget that renews later than this says when, but asks nobody to wait for it. */
const LONGEST_RETRY_MS = 15 * 60_000;

export function rateLimitExceeded(gauge: RateGauge, now: number, asked: number): ServingError {
  const { facts, window } = gauge;
  const current = Math.ceil(window.used(now) + window.held + window.debt);
  const at = window.fitsAt(now, asked);
  const retryAfterMs = Number.isFinite(at) ? Math.max(1, Math.ceil(at - now)) : undefined;
  const what = gauge.counts;
  const wait =
    window.limit === 0
      ? 'nothing is admitted'
      : `${current} are used${what === 'calls' ? '' : ` and up to ${asked} more were asked`}`;
  const advice =
    retryAfterMs === undefined
      ? 'Ask an administrator to raise the limit.'
      : `Try again in ${Math.ceil(retryAfterMs / 1_000)} seconds.`;
  return new ServingError(
    'RATE_LIMIT_EXCEEDED',
    `Rate limit exceeded: ${window.limit} ${what} per minute for ${subjectText(facts)}; ${wait}. ${advice}`,
    {
      details: {
        limit_type: facts.type,
        limit: window.limit,
        current,
        ...(retryAfterMs === undefined ? {} : { retry_after: Math.ceil(retryAfterMs / 1_000) }),
        ...subjectOf(facts),
      },
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}

export function budgetExceeded(gauge: MoneyGauge, wallMs: number, asked: number): ServingError {
  const { facts, period, renewal } = gauge;
  const leftMs = Math.max(1, period.endMs - wallMs);
  const renewsAt = new Date(period.endMs).toISOString();
  const [limit, spent, more] = [gauge.limit, gauge.settled, asked].map((nano) => nano / NANO);
  return new ServingError(
    'BUDGET_EXCEEDED',
    `Budget exceeded: $${limit} per ${renewal} for ${subjectText(facts)}; ${dollars(spent)} is spent and up to ${dollars(more)} more is asked. It renews at ${renewsAt}; an administrator can raise it.`,
    {
      details: {
        limit_type: facts.type,
        limit: limit ?? 0,
        current: spent ?? 0,
        asked: more ?? 0,
        renews_at: renewsAt,
        ...subjectOf(facts),
      },
      ...(leftMs <= LONGEST_RETRY_MS ? { retryAfterMs: leftMs } : {}),
    },
  );
}

function subjectText({ endpoint, key, principal }: GaugeFacts): string {
  const where = endpoint === null ? 'all endpoints together' : `endpoint '${endpoint}'`;
  if (principal === null) return where;
  const who = key === 'user_group' ? 'group' : key === 'service_principal' ? 'service principal' : 'user';
  return `${who} '${principal}' at ${where}`;
}

function subjectOf({ endpoint, key, principal }: GaugeFacts) {
  return { endpoint, key, principal };
}

function dollars(amount: number | undefined): string {
  return `$${(amount ?? 0).toFixed(6)}`;
}
