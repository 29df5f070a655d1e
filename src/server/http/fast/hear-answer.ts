// Hears the text of one answer as it is written, by standing before two methods of its response. Only for requests
// whose answer may be remembered: all others pay nothing for it.
import type { ServerResponse } from 'node:http';

export interface Heard {
  readonly text: string;
  /** As they were given to `writeHead`, names as they were spelled there. */
  readonly headers: Readonly<Record<string, unknown>>;
}

type Method = (...args: readonly unknown[]) => ServerResponse;

/** `hear` is called at most once, for an answer of status 200 that is written whole as a text. */
export function hearAnswer(outgoing: ServerResponse, hear: (heard: Heard) => void): void {
  let headers: Record<string, unknown> = {};
  const methods = outgoing as unknown as Record<'writeHead' | 'end', Method>;
  const { writeHead, end } = methods;
  methods.writeHead = (...args) => {
    const last = args.at(-1);
    if (typeof last === 'object' && last !== null && !Array.isArray(last)) headers = { ...last };
    return writeHead.apply(outgoing, [...args]);
  };
  methods.end = (...args) => {
    methods.writeHead = writeHead;
    methods.end = end;
    const [text] = args;
    if (outgoing.statusCode === 200 && typeof text === 'string') hear({ text, headers });
    return end.apply(outgoing, [...args]);
  };
}
