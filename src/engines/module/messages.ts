// What the server and the thread of an agent say to each other. Every value in them is plain JSON.
import type { Json, JsonObject } from '#core/json.ts';
import type { AgentPrincipal, AgentRequest } from './agent-request.ts';
import type { ToldFailure } from './ask-desk.ts';

export interface ThreadData {
  /** The module, as a URL. */
  readonly module: string;
  /** Addresses of what is registered to read TypeScript; none where nothing is needed. */
  readonly typescriptLoaders: readonly string[];
}

/** `id` is that of a call, `ask` that of a question the agent asks meanwhile. */
export type ToThread =
  | {
      readonly type: 'call';
      readonly id: number;
      readonly isStream: boolean;
      readonly request: AgentRequest;
      readonly principal: AgentPrincipal;
    }
  /** The next event of a stream is wanted. */
  | { readonly type: 'next'; readonly id: number }
  /** Nobody waits for the call any more. */
  | { readonly type: 'cancel'; readonly id: number; readonly reason: string }
  | { readonly type: 'answer'; readonly ask: number; readonly value: JsonObject }
  | { readonly type: 'answer_event'; readonly ask: number; readonly event: JsonObject }
  | { readonly type: 'answer_end'; readonly ask: number }
  | { readonly type: 'refusal'; readonly ask: number; readonly failure: ToldFailure }
  | { readonly type: 'ping' };

export type FromThread =
  | { readonly type: 'ready'; readonly streams: boolean }
  | { readonly type: 'unloadable'; readonly reason: string }
  /** Of a stream, in answer to `next`. */
  | { readonly type: 'event'; readonly id: number; readonly value: Json }
  /** All that a call has returned or, as a stream, has left to say. */
  | { readonly type: 'result'; readonly id: number; readonly values: readonly Json[] }
  | {
      readonly type: 'failed';
      readonly id: number;
      readonly said: string;
      readonly code?: string;
      readonly stack?: string;
    }
  | {
      readonly type: 'ask';
      readonly id: number;
      readonly ask: number;
      readonly question: Json;
      readonly isStream: boolean;
    }
  | { readonly type: 'ask_next'; readonly id: number; readonly ask: number }
  /** The agent has left a stream before its end, or was cancelled. */
  | { readonly type: 'ask_cancel'; readonly id: number; readonly ask: number }
  | {
      readonly type: 'log';
      readonly id: number;
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields: JsonObject;
    }
  | { readonly type: 'pong' };
