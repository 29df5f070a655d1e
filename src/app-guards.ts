// The guardrails of the application: how they ask a model (through serving, like everybody) and in whose name.
import { createCall } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import type { AskEndpoint, Guards } from '#core/policies.ts';
import { createGuards } from '#governance/guardrails/guardrails.ts';
import type { Identity } from '#governance/identity/identity.ts';
import type { Serving } from '#serving/serving.ts';

export interface AppGuardsOptions {
  /** Asked only when a call is guarded: serving is made with the guards. */
  readonly serving: () => Serving;
  readonly identity: Pick<Identity, 'principalNamed'>;
  readonly defaultJudge: () => string;
  readonly clock: Clock;
  readonly log: Log;
}

export function createAppGuards({ serving, identity, defaultJudge, clock, log }: AppGuardsOptions): Guards {
  const ask: AskEndpoint = async ({ endpoint, input, principal, origin, signal }) => {
    const options = { principal, origin, parameters: { temperature: 0 }, ...(signal && { signal }) };
    const { items } = await serving().invoke(createCall(endpoint, 'llm/v1/chat', [input], options));
    const [item] = items;
    if (!item) throw new Error('A call with one input has one item.');
    return item;
  };
  const principalNamed = (name: string) => identity.principalNamed(name);
  return createGuards({ ask, log, clock, defaultJudge, principalNamed });
}
