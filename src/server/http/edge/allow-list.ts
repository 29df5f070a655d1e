// Which addresses may connect, and whose word counts about the address of somebody else (trusted proxies).
import { BlockList, isIP } from 'node:net';
import { ServingError } from '#core/errors.ts';

export interface AddressRules {
  /** Addresses or networks (`10.0.0.0/8`); empty: everybody. */
  readonly allow: readonly string[];
  /** Proxies whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[];
}

export class AllowList {
  readonly #allowed: BlockList | undefined;
  readonly #proxies: BlockList;

  /** Throws INVALID_PARAMETER that shows what is no address. */
  constructor({ allow, trustedProxies }: AddressRules) {
    this.#allowed = allow.length === 0 ? undefined : toList('--allow', allow);
    this.#proxies = toList('--trusted-proxy', trustedProxies);
  }

  /** Before a byte is read: may this peer connect at all? */
  mayConnect(peer: string | undefined): boolean {
    return this.#allowed === undefined || this.#isAllowed(peer) || isIn(this.#proxies, peer);
  }

  /** The address a request comes from: the peer's, or the last one a trusted proxy vouches for. */
  addressOf(peer: string | undefined, forwardedFor: string | undefined): string | undefined {
    if (forwardedFor === undefined || !isIn(this.#proxies, peer)) return plain(peer);
    const hops = forwardedFor.split(',').map((hop) => hop.trim());
    // From the right, for anybody may write what they like on the left.
    for (const hop of hops.reverse()) if (!isIn(this.#proxies, hop)) return plain(hop);
    return plain(peer);
  }

  mayAsk(peer: string | undefined, forwardedFor: string | undefined): boolean {
    return this.#allowed === undefined || this.#isAllowed(this.addressOf(peer, forwardedFor));
  }

  #isAllowed(address: string | undefined): boolean {
    return this.#allowed !== undefined && isIn(this.#allowed, address);
  }
}

function toList(flag: string, networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits, ...rest] = network.trim().split('/');
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const prefix = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
    if (version === 0 || rest.length > 0 || prefix < 0 || prefix > most) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `${flag} ${JSON.stringify(network)} is no address or network. Give one such as 10.0.0.0/8, 192.168.1.7 or fd00::/8.`,
      );
    }
    list.addSubnet(address, prefix, version === 4 ? 'ipv4' : 'ipv6');
  }
  return list;
}

function isIn(list: BlockList, address: string | undefined): boolean {
  const known = plain(address);
  const version = known === undefined ? 0 : isIP(known);
  return known !== undefined && version !== 0 && list.check(known, version === 4 ? 'ipv4' : 'ipv6');
}

/** Sockets that take both versions show IPv4 peers as ::ffff:1.2.3.4; some proxies add a port or brackets. */
function plain(address: string | undefined): string | undefined {
  if (address === undefined) return undefined;
  const bare = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/^\[(.*)\](:\d+)?$/, '$1');
  return /^\d+\.\d+\.\d+\.\d+:\d+$/.test(bare) ? bare.slice(0, bare.lastIndexOf(':')) : bare;
}
