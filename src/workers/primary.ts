// The primary of several gateway processes: it holds the database, the registry, the limits and the books, answers
// what gateways pass on, tells them what changes, and starts those again that end.
import cluster, { type Worker } from 'node:cluster';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { formatLimits } from '#governance/limits/document.ts';
import { type LeaseConnection, LeaseOwner } from '#governance/limits/leases.ts';
import { openControlSocket } from '#server/http/control-socket.ts';
import type { HttpDeps } from '#server/http/deps.ts';
import { EarlyMessage } from '#server/http/fast/early-message.ts';
import { keepRequestId } from '#server/http/fast/request-id.ts';
import { createMetrics } from '#server/http/metrics.ts';
import { createListener } from '#server/http/server.ts';
import type { App } from '../app.ts';
import { REQUEST_ID } from './forward.ts';
import type { EdgeOptions, FromGateway, RequestCount, Start, ToGateway } from './messages.ts';
import { SERIALIZATION } from './messages.ts';
import { type PlaceBorrower, PlaceOwner } from './places.ts';
import { readUsageLines } from './read-rows.ts';
import { allSent, toSent } from './snapshot.ts';

export interface PrimaryOptions {
  readonly app: App;
  readonly deps: HttpDeps;
  readonly edge: EdgeOptions;
  readonly workers: number;
}

const FIRST_RESTART_MS = 100;
const LONGEST_RESTART_MS = 10_000;
/** A gateway that has lived this long was well: the next restart is quick again. */
const WELL_AFTER_MS = 30_000;
/** What passes the edge passes here too, with the headers that gateways add. */
const INNER_LIMITS = {
  maxHeaderSize: 64 * 1024,
  /** Gateways keep their connections; who may come is decided at the edge. */
  keepAliveTimeout: 0,
  requestTimeout: 0,
  headersTimeout: 0,
  IncomingMessage: EarlyMessage,
};

/** Beyond the patience for requests: then it is ended by force. */
const END_GRACE_MS = 2_000;

interface Running {
  readonly worker: Worker;
  readonly leases: LeaseConnection;
  readonly places: PlaceBorrower;
  readonly startedAtMs: number;
}

/** Resolves when all gateways listen. */
export async function startPrimary(
  options: PrimaryOptions,
): Promise<{ url: string; close(): Promise<void> }> {
  if (process.platform === 'win32') {
    throw new ServingError('INVALID_PARAMETER', 'There are no workers on Windows: leave out --workers.');
  }
  const primary = new Primary(options);
  return primary.open();
}

class Primary {
  readonly #options: PrimaryOptions;
  readonly #owner: LeaseOwner;
  readonly #places: PlaceOwner;
  readonly #running = new Map<number, Running>();
  readonly #directory = mkdtempSync(join(tmpdir(), 'duckserve-'));
  readonly #metrics: ReturnType<typeof createMetrics>;
  readonly #undo: (() => unknown)[] = [];
  #edge: EdgeOptions;
  /** Where all listen, once they do. */
  #url: string | undefined;
  #inner: Server | undefined;
  #restartMs = FIRST_RESTART_MS;
  #isClosing = false;

  constructor(options: PrimaryOptions) {
    const { app, deps, edge } = options;
    this.#options = options;
    this.#edge = edge;
    this.#metrics = createMetrics(deps);
    const findEndpoint = (name: string) => {
      try {
        return app.registry.getEndpoint(name);
      } catch {
        return undefined;
      }
    };
    this.#owner = new LeaseOwner({ limits: app.limits, findEndpoint, clock: SYSTEM_CLOCK, log: deps.log });
    this.#places = new PlaceOwner(options.workers, SYSTEM_CLOCK);
    app.serving.onTarget((key, queue) => this.#places.add(key, queue));
    this.#undo.push(() => this.#places.close());
  }

  async open(): Promise<{ url: string; close(): Promise<void> }> {
    const { app, deps, workers } = this.#options;
    const { app: routes, listener } = createListener(deps, this.#metrics);
    this.#inner = createServer(INNER_LIMITS, (incoming, outgoing) => {
      // Only gateways can open this socket, and they let no caller set it.
      const requestId = incoming.headers[REQUEST_ID];
      if (typeof requestId === 'string') keepRequestId(incoming, requestId);
      listener(incoming, outgoing);
    });
    this.#inner.maxHeadersCount = 0;
    await new Promise<void>((resolve, reject) => {
      this.#inner?.once('error', reject);
      this.#inner?.listen(this.#innerPath, resolve);
    });
    chmodSync(this.#innerPath, 0o600);
    this.#listenToChanges();
    cluster.setupPrimary({ ...gatewayCommand(), serialization: SERIALIZATION });
    cluster.on('exit', this.#onExit);
    try {
      // With port 0 they all get the same free one.
      const [url = ''] = await Promise.all(Array.from({ length: workers }, () => this.#fork()));
      this.#url = url;
      const control =
        app.dataDir === null
          ? undefined
          : await openControlSocket(routes, { dataDir: app.dataDir, log: deps.log });
      this.#undo.push(() => control?.close());
      return { url, close: () => this.#close() };
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  get #innerPath(): string {
    return join(this.#directory, 'inner.sock');
  }

  /** Resolves with the address when the gateway listens. */
  #fork(): Promise<string> {
    // The socket that a free port was found for is closed with the last who listens on it.
    if (this.#url !== undefined && this.#running.size === 0) {
      this.#edge = { ...this.#edge, port: Number(new URL(this.#url).port) };
    }
    const worker = cluster.fork();
    const running: Running = {
      worker,
      leases: this.#owner.connect(),
      places: this.#places.connect((lent) => tell(worker, { type: 'places', lent })),
      startedAtMs: Date.now(),
    };
    this.#running.set(worker.id, running);
    // After its last message, which the end of the process does not wait for.
    worker.once('disconnect', () => {
      running.leases.close();
      running.places.close();
    });
    return new Promise((resolve, reject) => {
      worker.on('message', (message: FromGateway) => {
        if (message.type === 'hello') this.#start(worker);
        else if (message.type === 'ready' && message.url === (this.#url ?? message.url)) resolve(message.url);
        else if (message.type === 'ready') worker.process.kill('SIGKILL');
        else if (message.type === 'failed') {
          reject(new ServingError('INVALID_PARAMETER', message.message));
          worker.process.kill('SIGKILL');
        } else this.#take(running, message);
      });
      worker.once('exit', (code, signal) =>
        reject(
          new ServingError('INTERNAL', `A gateway process ended before it listened (${signal ?? code}).`),
        ),
      );
    });
  }

  #start(worker: Worker): void {
    const { app, deps } = this.#options;
    const start: Start = {
      edge: this.#edge,
      isDurable: app.isDurable,
      isTraced: deps.tracing !== undefined,
      innerPath: this.#innerPath,
      endpoints: allSent(app.registry),
      identity: app.identity.snapshot(),
      rules: formatLimits(app.limits.rules),
    };
    tell(worker, { type: 'start', start });
  }

  #take({ worker, leases, places }: Running, message: FromGateway): void {
    if (message.type === 'lease') {
      const { id } = message;
      void leases.request(message.message).then((answer) => tell(worker, { type: 'leased', id, answer }));
    } else if (message.type === 'notice') leases.notify(message.message);
    else if (message.type === 'books') this.#record(message.lines, message.requests);
    else if (message.type === 'places') places.ask(message.key, message.most);
    else if (message.type === 'places_back') places.giveBack(message.key);
    else if (message.type === 'secret') {
      const { reference } = message;
      tell(worker, { type: 'secret', reference, value: this.#secretOf(reference) });
    }
  }

  #secretOf(reference: string): string | null {
    try {
      return this.#options.app.secrets.resolve(reference);
    } catch {
      // Who is passed on to the primary is told what is missing.
      return null;
    }
  }

  #record(lines: string, requests: readonly RequestCount[]): void {
    this.#options.app.serving.recordElsewhere(lines, readUsageLines);
    for (const { route, status, count } of requests) {
      for (let each = 0; each < count; each++) this.#metrics.observeRequest('POST', route, status);
    }
  }

  #listenToChanges(): void {
    const { registry, identity, limits, documents } = this.#options.app;
    this.#undo.push(
      registry.onChange(({ kind, name }) => {
        if (kind === 'setting') return;
        if (kind !== 'endpoint') {
          this.#tellAll({ type: 'endpoints', isAll: true, endpoints: allSent(registry), gone: [] });
          return;
        }
        const known = registry.listEndpoints().find((endpoint) => endpoint.name === name);
        const sent = known && toSent(registry, known);
        const endpoints = sent ? [sent] : [];
        this.#tellAll({ type: 'endpoints', isAll: false, endpoints, gone: sent ? [] : [name] });
      }),
      identity.onChange((changes) => this.#tellAll({ type: 'identity', changes })),
      limits.onChange((rules) => this.#tellAll({ type: 'rules', rules: formatLimits(rules) })),
      documents.onChange((changes) => {
        if (changes.some(({ kind }) => kind === 'secret')) this.#tellAll({ type: 'forget_secrets' });
      }),
    );
  }

  #tellAll(message: ToGateway): void {
    for (const { worker } of this.#running.values()) tell(worker, message);
  }

  readonly #onExit = (worker: Worker, code: number, signal: string): void => {
    const running = this.#running.get(worker.id);
    if (!running) return;
    this.#running.delete(worker.id);
    if (this.#isClosing) return;
    if (Date.now() - running.startedAtMs > WELL_AFTER_MS) this.#restartMs = FIRST_RESTART_MS;
    const delayMs = this.#restartMs;
    this.#restartMs = Math.min(LONGEST_RESTART_MS, delayMs * 2);
    this.#options.deps.log.error({ code, signal, delayMs }, 'a gateway process ended; it is started again');
    const timer = setTimeout(() => {
      if (this.#isClosing) return;
      this.#fork().catch((error: unknown) =>
        this.#options.deps.log.error({ err: error }, 'a gateway process could not be started'),
      );
    }, delayMs);
    this.#undo.push(() => clearTimeout(timer));
  };

  async #close(): Promise<void> {
    this.#isClosing = true;
    const all = [...this.#running.values()];
    await Promise.all(all.map(({ worker }) => this.#end(worker)));
    cluster.off('exit', this.#onExit);
    for (const undo of this.#undo.splice(0).reverse()) await undo();
    await new Promise<void>((resolve) => {
      if (!this.#inner) return resolve();
      this.#inner.close(() => resolve());
      this.#inner.closeAllConnections();
    });
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Its own patience first; then it is ended. */
  #end(worker: Worker): Promise<void> {
    return new Promise((resolve) => {
      if (worker.isDead()) return resolve();
      const force = setTimeout(() => worker.process.kill('SIGKILL'), this.#edge.drainMs + END_GRACE_MS);
      let missing = 2;
      const ended = () => {
        if (--missing > 0) return;
        clearTimeout(force);
        resolve();
      };
      worker.once('exit', ended);
      worker.once('disconnect', ended);
      tell(worker, { type: 'drain' });
    });
  }
}

function tell(worker: Worker, message: ToGateway): void {
  // A gateway that is ending hears nothing any more, and needs nothing.
  if (worker.isConnected()) worker.send(message, () => {});
}

/** In a checkout the file is TypeScript, and the process has to be able to read it. */
function gatewayCommand(): { exec: string; execArgv: string[] } {
  const isSource = import.meta.url.endsWith('.ts');
  const exec = fileURLToPath(
    new URL(isSource ? './gateway-process.ts' : './gateway-process.js', import.meta.url),
  );
  if (!isSource) return { exec, execArgv: [] };
  const tsx = createRequire(import.meta.url).resolve('tsx');
  return { exec, execArgv: ['--import', pathToFileURL(tsx).href] };
}
