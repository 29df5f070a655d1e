// An agent: answers questions about orders. It lets a model of the same registry decide whether to look an order up,
// looks it up, and asks the model again. Register it with
//   duckserve models register orders examples/agent.mjs --allow-code
// and ask it like any chat endpoint, with custom_inputs {"model": "NAME_OF_A_CHAT_ENDPOINT"} or that name as MODEL in the
// environment of its served entity. What it asks is asked as whoever asks it.
const ORDERS = new Map([
  ['4711', { state: 'sent', carrier: 'night train' }],
  ['4712', { state: 'waiting for payment' }],
]);

const TOOLS = [
  {
    type: 'function',
    function: {
      name: 'find_order',
      description: 'What is known of an order',
      parameters: { type: 'object', properties: { number: { type: 'string' } }, required: ['number'] },
    },
  },
];

const MOST_STEPS = 4;

export async function predict({ messages, parameters, custom_inputs }, { ask, log, principal }) {
  const endpoint = custom_inputs.model ?? process.env.MODEL ?? 'echo-chat';
  const history = [
    { role: 'system', content: `You answer ${principal.name} about orders. Look them up, never guess.` },
    ...messages,
  ];
  const seen = [];
  for (let step = 0; step < MOST_STEPS; step++) {
    const answer = await ask({ endpoint, messages: history, parameters: { ...parameters, tools: TOOLS } });
    if (!answer.tool_calls) return { content: answer.content, custom_outputs: { seen } };
    history.push({ role: 'assistant', content: answer.content, tool_calls: answer.tool_calls });
    for (const { id, function: called } of answer.tool_calls) {
      const { number } = JSON.parse(called.arguments);
      log.info('looks up an order', { number });
      seen.push(number);
      const found = ORDERS.get(number) ?? { state: 'not known' };
      history.push({ role: 'tool', tool_call_id: id, content: JSON.stringify(found) });
    }
  }
  return `I looked ${MOST_STEPS} times and still cannot say.`;
}
