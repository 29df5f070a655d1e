// A request whose body is handed over in one piece, without the machinery of streams, to whoever asked before it
// came; for everybody else it is Node's own. The bytes come from Node's parser either way.
import { IncomingMessage } from 'node:http';

type Take = (message: EarlyMessage, body: Buffer) => void;

const NOTHING = Buffer.alloc(0);

export class EarlyMessage extends IncomingMessage {
  #take: Take | undefined;
  readonly #pieces: Buffer[] = [];

  /** Must be asked before the first byte of the body is there: in the turn of the `request` event. */
  takeBody(take: Take): void {
    this.#take = take;
  }

  /** For who has taken the body and leaves the request to others: they read it as if it had just come. */
  giveBack(body: Buffer): void {
    if (body.length > 0) super.push(body);
    super.push(null);
  }

  /** Called by Node for each piece of the body and, with null, at its end. */
  override push(chunk: Buffer | null, encoding?: BufferEncoding): boolean {
    const take = this.#take;
    if (take === undefined) return super.push(chunk, encoding);
    if (chunk !== null) {
      this.#pieces.push(chunk);
      return true;
    }
    this.#take = undefined;
    const [first = NOTHING] = this.#pieces;
    take(this, this.#pieces.length <= 1 ? first : Buffer.concat(this.#pieces));
    return true;
  }
}
