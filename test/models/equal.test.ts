// The same rows predicted by the library that trained the model, by SQL and by HTTP in each form of the scoring
// protocol: equal.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { differences } from './equal.ts';
import { formsOf, statementOf } from './forms.ts';
import { expectedOf, predict, type Registration, sql, stage } from './stage.ts';

const { python, folder, registrations } = stage();
const scratch = mkdtempSync(join(tmpdir(), 'duckserve-models-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe('models of real libraries', () => {
  it('are trained, registered and served', ({ skip }) => {
    if ('reason' in python) return skip(python.reason);
    expect(registrations.length).toBeGreaterThan(20);
  });
});

describe.each(registrations.map((registration) => [registration.name, registration] as const))(
  '%s',
  (name, registration) => {
    const expected = expectedOf(folder, registration.model);

    it(`is registered for the engine ${registration.engine}`, () => {
      expect(said(registration)).toBe(`ended with 0, ${registration.engine}`);
    });

    for (const one of expected.cases) {
      describe(one.title, () => {
        it.each(formsOf(one).map((form) => [form.title, form] as const))(
          `gives over HTTP as %s what ${expected.library} gives`,
          async (_title, { body, type }) => {
            expect(differences(await predict(name, body, type), one.predictions)).toEqual([]);
          },
        );

        const isAskedInSql = one.params === undefined && !('inputs' in one.body);
        it.skipIf(!isAskedInSql)(`gives in SQL what ${expected.library} gives`, async () => {
          const rows = await sql(statementOf(name, one, join(scratch, `${name}.json`)));
          const predictions = rows.map(([cell]) => JSON.parse(String(cell)) as Json);
          expect(differences(predictions, one.predictions)).toEqual([]);
        });
      });
    }
  },
);

/** How the registration ended, and for which engine by its own words. */
function said({ code, stderr }: Registration): string {
  if (code !== 0) return `ended with ${code}: ${stderr}`;
  const engine = /^Registered .* \((\w+), /m.exec(stderr)?.[1] ?? `no engine in: ${stderr}`;
  return `ended with 0, ${engine}`;
}
