// Runs one scenario of tests/client/test_node.py with the client in examples/node, and prints the result as JSON.
import { inspect } from "node:util";
import { InstAccess } from "../../examples/node/instaccess.mjs";

const { baseUrl, options = {}, refreshed, steps } = JSON.parse(process.env.SCENARIO);
const slept = [];
let now = 1000;
const access = new InstAccess(baseUrl, {
  ...options,
  refresh: refreshed ? () => refreshed.shift() : null,
  clock: () => now,
  sleep: async (seconds) => { slept.push(seconds); now += seconds; },
});
const results = [];
for (const step of steps) {
  try {
    if (step.advance) now += step.advance;
    if (step.urls) {
      const answers = await Promise.all(step.urls.map((url) => access.fetch(url, step.options)));
      results.push(answers.map((answer) => answer.status));
    }
  } catch (error) {
    results.push({ code: error.code, message: error.message, report: inspect(error, { depth: 9 }) });
  }
}
console.log(JSON.stringify({ results, slept, repr: inspect(access, { depth: 9, showHidden: true }) }));
