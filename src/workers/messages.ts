// What the primary process and its gateway processes say to each other. Between processes of one program, started
// by each other: shapes are not checked again.
import type { Endpoint, Target } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { RegistryChange } from '#storage/registry-store.ts';
import type { LentPlaces } from './places.ts';

/** An endpoint as it was compiled: its targets with their prices, in the order of its served entities. */
export interface SentEndpoint {
  readonly endpoint: Endpoint;
  readonly targets: readonly Target[];
}

/** Where a gateway listens, and what it is told of the edge. Everything is JSON. */
export interface EdgeOptions {
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  readonly addresses: { readonly allow: readonly string[]; readonly trustedProxies: readonly string[] };
  readonly drainMs: number;
}

export interface Start {
  readonly edge: EdgeOptions;
  /** Rows must be on disk before an answer is given: the primary answers all. */
  readonly isDurable: boolean;
  /** Path of the Unix socket where the primary answers what is passed on. */
  readonly innerPath: string;
  /** Spans are made by the routes: the primary answers all. */
  readonly isTraced: boolean;
  readonly endpoints: readonly SentEndpoint[];
  readonly identity: readonly RegistryChange[];
  /** Limits of the workspace. */
  readonly rules: Json;
}

export type ToGateway =
  | { readonly type: 'start'; readonly start: Start }
  | {
      readonly type: 'endpoints';
      /** All there are, instead of those that changed. */
      readonly isAll: boolean;
      readonly endpoints: readonly SentEndpoint[];
      /** Names that stand for nothing any more. */
      readonly gone: readonly string[];
    }
  | { readonly type: 'identity'; readonly changes: readonly RegistryChange[] }
  /** Null: it points to nothing. Kept in memory alone, until `forget_secrets`. */
  | { readonly type: 'secret'; readonly reference: string; readonly value: string | null }
  | { readonly type: 'forget_secrets' }
  | { readonly type: 'places'; readonly lent: LentPlaces }
  | { readonly type: 'rules'; readonly rules: Json }
  | { readonly type: 'leased'; readonly id: number; readonly answer: Json }
  | { readonly type: 'drain' };

export type FromGateway =
  /** It asks for its start. */
  | { readonly type: 'hello' }
  | { readonly type: 'ready'; readonly url: string }
  | { readonly type: 'failed'; readonly message: string }
  /** It has ended well, and this is the last that is heard of it. */
  | { readonly type: 'drained' }
  | { readonly type: 'lease'; readonly id: number; readonly message: Json }
  | { readonly type: 'notice'; readonly message: Json }
  | { readonly type: 'secret'; readonly reference: string }
  | { readonly type: 'places'; readonly key: string; readonly most: number }
  | { readonly type: 'places_back'; readonly key: string }
  /** Usage rows as lines, and requests by `route status`. */
  | { readonly type: 'books'; readonly lines: string; readonly requests: readonly RequestCount[] };

export interface RequestCount {
  readonly route: string;
  readonly status: number;
  readonly count: number;
}

/** Endpoints and identities are sent as they are; what is undefined in them is left out on the way. */
export const SERIALIZATION = 'advanced';
