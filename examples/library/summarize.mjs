// Summarizes the texts of a table from a Node program: node examples/library/summarize.mjs [ENDPOINT]
// Without an endpoint the built-in echo answers, so that it runs anywhere and costs nothing.
import { openDuckserve } from 'duckserve';

const endpoint = process.argv[2] ?? 'echo-chat';
const duckserve = await openDuckserve({ notify: (line) => console.error(line) });

await duckserve.sql(`
  CREATE TABLE mails AS FROM (VALUES
    (1, 'The printer on the second floor is out of paper again.'),
    (2, 'Lunch on Friday? The new place by the pond has good bread.')) AS t(id, body)`);

const [summaries] = await duckserve.sql(
  "SELECT id, ai_query(?, 'Summarize in five words: ' || body) AS summary FROM mails ORDER BY id",
  {
    parameters: [endpoint],
    // Never more than this is asked, whatever the table holds.
    budget: duckserve.createBudget({ maxCalls: 100 }),
    onProgress: ({ answered, total }) => console.error(`${answered} of ${total} answered`),
  },
);
for (const [id, summary] of summaries.rows()) console.log(`${id}: ${summary}`);
console.log(`${summaries.calls.asked} asked, ${summaries.calls.cached} from the answer store`);
await duckserve.close();
