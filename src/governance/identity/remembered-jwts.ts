// JWTs that were checked, by hash until they expire, so that a caller's second request waits for no signature.
// Not here: the check itself (oidc).
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { type OidcSettings, OidcVerifier, type VerifiedToken } from './oidc.ts';
import type { PrincipalRecord } from './records.ts';

const MOST = 10_000;

export class RememberedJwts {
  readonly #verifier: OidcVerifier;
  readonly #clock: Clock;
  readonly #principals: ReadonlyMap<string, PrincipalRecord>;
  /** From the oldest; the oldest goes first when there are too many. */
  readonly #verified = new Map<string, VerifiedToken>();

  constructor(settings: OidcSettings, clock: Clock, principals: ReadonlyMap<string, PrincipalRecord>) {
    this.#verifier = new OidcVerifier(settings, clock);
    this.#clock = clock;
    this.#principals = principals;
  }

  authenticate(text: string, key: string): Principal | Promise<Principal> {
    const known = this.#verified.get(key);
    if (known !== undefined) {
      if (this.#clock.now() < known.expiresAtMs) return known.principal;
      this.#verified.delete(key);
    }
    return this.#verify(text, key);
  }

  forget(): void {
    this.#verified.clear();
  }

  async #verify(text: string, key: string): Promise<Principal> {
    const verified = await this.#verifier.verify(text);
    const { name, kind } = verified.principal;
    const record = this.#principals.get(name);
    // Endpoints and access lists know creators by name: nobody may come by the name of somebody else.
    if (record !== undefined && (record.kind !== kind || record.id === LOCAL_OWNER.id)) {
      throw new ServingError(
        'UNAUTHENTICATED',
        `The JWT is refused: it names '${name}', and that is ${record.kind === kind ? 'the owner of the data directory' : `a ${record.kind === 'user' ? 'user' : 'service principal'} here`}.`,
      );
    }
    const oldest = this.#verified.size >= MOST ? this.#verified.keys().next().value : undefined;
    if (oldest !== undefined) this.#verified.delete(oldest);
    this.#verified.set(key, verified);
    return verified.principal;
  }
}
