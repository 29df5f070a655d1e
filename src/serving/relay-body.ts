// A body on its way through: what the door has found in it, and the few places where other bytes are put.
// Not here: reading it (the door) and sending it (the engine).
import type { ByteRelay } from '#engines/engine.ts';

/** A request of the OpenAI API that was looked through once. Places are of bytes; an end is after the last one. */
export interface RelayBody {
  readonly bytes: Buffer;
  /** The value of `model`, quotes included; absent where the path names the endpoint. */
  readonly model?: Place;
  readonly isStream: boolean;
  /** The value of `stream_options`. */
  readonly streamOptions?: Place;
  readonly includesUsage: boolean;
  readonly maxTokens?: number;
  /** The name it was given under. */
  readonly limitField?: ByteRelay['limitField'];
  /** Bytes of `messages` or `prompt`. */
  readonly inputLength: number;
  /** Where the object ends: the place of its closing brace. */
  readonly end: number;
}

export interface Place {
  readonly from: number;
  readonly to: number;
}

const WITH_USAGE = Buffer.from('{"include_usage":true}');
const STREAM_OPTIONS = Buffer.from(',"stream_options":{"include_usage":true}');
const MODEL = Buffer.from('"model":');
const COMMA = Buffer.from(',');

/** Whether the target understands it as it is. Renaming is left to those who read the whole body. */
export function isPassable(body: RelayBody, { limitField }: ByteRelay): boolean {
  return body.limitField === undefined || body.limitField === limitField;
}

/** The body for the target, in pieces. `cap`: output tokens where the caller has set no limit. */
export function toPieces(body: RelayBody, relay: ByteRelay, cap: number | undefined): readonly Uint8Array[] {
  const { bytes, model, streamOptions, end } = body;
  const pieces: Uint8Array[] = [];
  const asksUsage = body.isStream && relay.hasStreamOptions && !body.includesUsage;
  const options = asksUsage ? streamOptions : undefined;
  const isOptionsFirst = options !== undefined && model !== undefined && options.from < model.from;
  let at = 0;
  if (options && isOptionsFirst) at = put(pieces, bytes, at, options, WITH_USAGE);
  if (model) at = put(pieces, bytes, at, model, relay.model);
  else {
    at = bytes.indexOf(123) + 1;
    pieces.push(bytes.subarray(0, at), MODEL, relay.model, COMMA);
  }
  if (options && !isOptionsFirst) at = put(pieces, bytes, at, options, WITH_USAGE);
  if (!(asksUsage && !options) && cap === undefined) {
    pieces.push(bytes.subarray(at));
    return pieces;
  }
  pieces.push(bytes.subarray(at, end));
  if (asksUsage && !options) pieces.push(STREAM_OPTIONS);
  if (cap !== undefined) pieces.push(Buffer.from(`,"${relay.limitField}":${cap}`));
  pieces.push(bytes.subarray(end));
  return pieces;
}

/** What stands before the place, and what stands in it from now on; gives where the body goes on. */
function put(pieces: Uint8Array[], bytes: Buffer, at: number, { from, to }: Place, by: Uint8Array): number {
  pieces.push(bytes.subarray(at, from), by);
  return to;
}
