// A gateway process: the short way for calls that need nothing but to be passed on to a provider, out of what the
// primary has sent; everything else is passed on to the primary. It opens no database and decides nothing new.

import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { Guard, Guards } from '#core/policies.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { EngineContext } from '#engines/engine.ts';
import { customEngine, openaiEngine } from '#engines/openai/openai.ts';
import { Identity } from '#governance/identity/identity.ts';
import { type LeaseChannel, LeasedMeters } from '#governance/limits/leases.ts';
import { FastDoor } from '#server/http/fast/door.ts';
import { type HttpServer, openEdge } from '#server/http/server.ts';
import { Serving } from '#serving/serving.ts';
import type { RegistryStore } from '#storage/registry-store.ts';
import { AskedSecrets } from './asked-secrets.ts';
import { GatewayBooks } from './books.ts';
import { createForwarder, type Forwarder } from './forward.ts';
import type { FromGateway, Start, ToGateway } from './messages.ts';
import { BorrowedPlaces } from './places.ts';
import { SentEndpoints } from './snapshot.ts';

export class Gateway {
  readonly #start: Start;
  readonly #send: (message: FromGateway) => void;
  readonly #log: Log;
  readonly #endpoints = new SentEndpoints();
  readonly #identity: Identity;
  readonly #meters: LeasedMeters;
  readonly #books: GatewayBooks;
  readonly #asked = new Map<number, (answer: Json) => void>();
  readonly #serving: Serving;
  readonly #forwarder: Forwarder;
  readonly #secrets: AskedSecrets;
  readonly #places: BorrowedPlaces;
  #server: HttpServer | undefined;
  #lastId = 0;

  constructor(start: Start, send: (message: FromGateway) => void, log: Log) {
    this.#start = start;
    this.#send = send;
    this.#log = log;
    const clock = SYSTEM_CLOCK;
    this.#identity = new Identity({ store: READ_ONLY, clock, env: process.env, log });
    this.#identity.apply(start.identity);
    this.#endpoints.take(start.endpoints, [], true);
    this.#meters = new LeasedMeters({ channel: this.#channel(), clock, asksAhead: true });
    this.#meters.setRules(start.rules);
    this.#books = new GatewayBooks(send, start.isDurable);
    this.#forwarder = createForwarder(start.innerPath);
    this.#secrets = new AskedSecrets((reference) => send({ type: 'secret', reference }), clock);
    this.#serving = new Serving({
      resolver: this.#endpoints,
      engines: new Map([openaiEngine, customEngine].map((engine) => [engine.kind, engine])),
      engineContext: this.#engineContext(),
      answers: NO_ANSWERS,
      usage: this.#books,
      clock,
      log,
      authorize: this.#identity.authorize,
      meters: this.#meters,
      guards: LEAVE_GUARDED,
    });
    this.#places = new BorrowedPlaces({
      clock,
      ask: (key, most) => send({ type: 'places', key, most }),
      giveBack: (key) => send({ type: 'places_back', key }),
    });
    this.#serving.onTarget((key, queue) => this.#places.add(key, queue));
  }

  /** Gives the address. */
  async open(): Promise<string> {
    const { relay } = this.#serving;
    const door = new FastDoor(
      {
        relay: { start: (call, reader) => relay.startOrOpen(call, reader) },
        identity: this.#identity,
        findEndpoint: (name) => this.#endpoints.get(name),
        log: this.#log,
        onRequest: (route, status) => this.#books.count(route, status),
      },
      this.#forwarder.listener,
    );
    const { edge, isDurable, isTraced } = this.#start;
    const listener = isDurable || isTraced ? this.#forwarder.listener : door.listener;
    const context = { isOpen: this.#identity.isOpen, log: this.#log };
    this.#server = await openEdge(listener, context, edge);
    return this.#server.url;
  }

  take(message: ToGateway): void {
    switch (message.type) {
      case 'endpoints':
        this.#endpoints.take(message.endpoints, message.gone, message.isAll);
        return;
      case 'identity':
        this.#identity.apply(message.changes);
        return;
      case 'secret':
        this.#secrets.take(message.reference, message.value);
        return;
      case 'forget_secrets':
        this.#secrets.forget();
        return;
      case 'places':
        this.#places.take(message.lent);
        return;
      case 'rules':
        this.#meters.setRules(message.rules);
        return;
      case 'leased':
        this.#asked.get(message.id)?.(message.answer);
        this.#asked.delete(message.id);
        return;
      case 'start':
      case 'drain':
        return;
    }
  }

  /** Lets requests finish, gives back what was lent, and hands over the last rows. */
  async drain(): Promise<void> {
    await this.#server?.close();
    await this.#serving.close();
    this.#forwarder.close();
    this.#places.close();
    this.#meters.close();
    await this.#books.flush();
  }

  #channel(): LeaseChannel {
    return {
      request: (message) =>
        new Promise((resolve) => {
          const id = ++this.#lastId;
          this.#asked.set(id, resolve);
          this.#send({ type: 'lease', id, message });
        }),
      notify: (message) => this.#send({ type: 'notice', message }),
    };
  }

  #engineContext(): EngineContext {
    return {
      log: this.#log,
      modelCacheDir: '',
      // Where it fails the call is passed on, and the primary says why.
      resolveSecret: (reference) => this.#secrets.resolve(reference),
      allowDownload: () => false,
      notify() {},
    };
  }
}

async function refuse(): Promise<never> {
  throw new ServingError('INTERNAL', 'A gateway writes nothing. This is a defect of duckserve.');
}

const READ_ONLY: RegistryStore = { loadAll: async () => [], put: refuse, delete: refuse, transact: refuse };

/** Answers are kept, and looked for, by the primary. */
const NO_ANSWERS: AnswerStore = {
  get: () => undefined,
  put() {},
  flush: async () => {},
  *entries() {},
  clear: async () => 0,
  count: 0,
};

const GUARDED: Guard = { fingerprint: 'guarded' };
/** Guards ask models and endpoints of the primary: calls under one are passed on. */
const LEAVE_GUARDED: Guards = {
  guardOf: ({ aiGateway }) => (aiGateway?.guardrails === undefined ? undefined : GUARDED),
};
