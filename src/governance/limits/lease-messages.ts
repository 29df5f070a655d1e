// What a worker process and the owner of the limits say to each other. Plain JSON, in order, between processes of
// one program: shapes are not checked again.
import type { Principal, Spend } from '#core/call.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';

/** Whose meter: both sides find it by the same facts. */
export interface MeterName {
  readonly principal: Principal;
  readonly isPatient: boolean;
  readonly endpoint: string;
}

/** Amounts of one request, or of a lease. Null: nothing counts it. */
export interface Amounts {
  readonly calls: number | null;
  readonly tokens: number | null;
  readonly nanodollars: number | null;
}

/** What one request is expected to ask, and for how many of them a lease is wanted. */
export interface LeaseWish {
  readonly unit: { readonly calls: number; readonly tokens: number; readonly nanodollars: number };
  readonly times: number;
}

export interface LeaseGrant extends Amounts {
  readonly id: number;
  /** Epoch milliseconds after which nothing is taken from it. */
  readonly expiresAtMs: number;
}

export type LeaseRequest =
  /** One reservation, as `Budget.reserve`; `id` is the worker's, for `settle` and `cancel`. */
  | {
      readonly type: 'reserve';
      readonly id: number;
      readonly meter: MeterName;
      readonly spend: Spend;
      readonly wish?: LeaseWish;
    }
  | { readonly type: 'lease'; readonly meter: MeterName; readonly wish: LeaseWish };

export interface LeaseAnswer {
  readonly lease?: LeaseGrant;
  readonly error?: JsonObject;
}

export type LeaseNotice =
  | { readonly type: 'settle'; readonly id: number; readonly actual: Spend }
  | { readonly type: 'cancel'; readonly id: number }
  | { readonly type: 'reports'; readonly reports: readonly LeaseReport[] };

/** What happened to a lease since the last report. */
export interface LeaseReport {
  readonly id: number;
  readonly takenCalls: number;
  readonly takenTokens: number;
  /** Of calls that are over: what was taken for them, and what they came to. */
  readonly doneTokens: { readonly taken: number; readonly actual: number };
  readonly doneNanodollars: { readonly taken: number; readonly actual: number };
  readonly refundedCalls: number;
  /** Nothing more is taken; what is left of calls and tokens goes back, and of money this much. */
  readonly isEnded: boolean;
  readonly unusedNanodollars: number;
  /** All that was taken is done: the last report. */
  readonly isOver: boolean;
}

export function toErrorMessage({ code, message, details, retryAfterMs }: ServingError): JsonObject {
  return { code, message, details, ...(retryAfterMs === undefined ? {} : { retry_after_ms: retryAfterMs }) };
}

export function fromErrorMessage(error: JsonObject): ServingError {
  const { code, message, details, retry_after_ms: retryAfterMs } = error;
  return new ServingError(code as ErrorCode, String(message), {
    details: details as JsonObject,
    ...(typeof retryAfterMs === 'number' ? { retryAfterMs } : {}),
  });
}

/** Our own shapes as JSON: they have no index signature. */
export function toJson(message: LeaseRequest | LeaseAnswer | LeaseNotice): Json {
  return message as unknown as Json;
}

export function fromJson<T extends LeaseRequest | LeaseAnswer | LeaseNotice>(message: Json): T {
  return message as unknown as T;
}
