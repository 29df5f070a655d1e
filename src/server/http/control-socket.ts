// The control socket: a Unix socket in the data directory through which the owner's own programs ask a running
// server, without a token, whatever its routes offer. Only the owner of the files can open it.
import { chmodSync, mkdtempSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { LOCAL_OWNER } from '#core/call.ts';
import { toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import { defaultSocket, findSocket, isTooLong, noteFile } from './control-place.ts';
import type { HttpEnv } from './request.ts';

export interface ControlSocket {
  readonly path: string;
  close(): Promise<void>;
}

export interface ControlOptions {
  /** The caller holds its lock, so a socket that is there belongs to nobody any more. */
  readonly dataDir: string;
  readonly log: Log;
}

/**
 * Undefined where there can be none: on Windows, which has no such sockets, and where the directory cannot be
 * written to. The server works without it, so that is a warning and no error.
 */
export async function openControlSocket(
  app: Hono<HttpEnv>,
  { dataDir, log }: ControlOptions,
): Promise<ControlSocket | undefined> {
  if (process.platform === 'win32') return undefined;
  const listener = getRequestListener((request, env) => app.fetch(request, { ...env, caller: LOCAL_OWNER }), {
    overrideGlobalObjects: false,
  });
  const server = createServer((incoming, outgoing) => void listener(incoming, outgoing));
  let place: Place | undefined;
  try {
    removeStale(dataDir);
    place = choosePlace(dataDir);
    await open(server, place, dataDir);
  } catch (error) {
    server.close();
    if (place !== undefined) remove(place);
    log.warn({ message: toServingError(error).message }, 'the control socket cannot be opened');
    return undefined;
  }
  const opened = place;
  server.on('error', (error) => log.error({ message: error.message }, 'control socket error'));
  const close = async () => {
    remove(opened);
    if (opened.isAway) rmSync(noteFile(dataDir), { force: true });
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  };
  return { path: opened.path, close };
}

/** It appears under its name when nobody else can open it any more, and in one step. */
async function open(server: Server, { path, staging, isAway }: Place, dataDir: string): Promise<void> {
  const first = join(staging, 's');
  await listen(server, first);
  chmodSync(first, 0o600);
  renameSync(first, path);
  if (isAway) writeFileSync(noteFile(dataDir), `${JSON.stringify({ socket: path })}\n`, { mode: 0o600 });
  else rmdirSync(staging);
}

interface Place {
  readonly path: string;
  /** A folder that only this user can look into. */
  readonly staging: string;
  readonly isAway: boolean;
}

function choosePlace(dataDir: string): Place {
  const path = defaultSocket(dataDir);
  // `.control-` with six characters of chance and the name in it is the longer of the two paths.
  if (!isTooLong(join(dataDir, '.control-XXXXXX', 's'))) {
    return { path, staging: mkdtempSync(join(dataDir, '.control-')), isAway: false };
  }
  const staging = mkdtempSync(join(tmpdir(), 'duckserve-control-'));
  return { path: join(staging, 'control.sock'), staging, isAway: true };
}

/** What a server that was killed has left. Folders are only removed when they are empty. */
function removeStale(dataDir: string): void {
  const path = findSocket(dataDir);
  if (path !== undefined) removeSocket(path, path !== defaultSocket(dataDir));
  rmSync(noteFile(dataDir), { force: true });
}

function remove({ path, staging, isAway }: Place): void {
  removeSocket(join(staging, 's'), !isAway);
  removeSocket(path, isAway);
}

function removeSocket(path: string, isAloneInFolder: boolean): void {
  rmSync(path, { force: true });
  if (!isAloneInFolder) return;
  try {
    rmdirSync(dirname(path));
  } catch {
    // Not there any more, or not ours alone: it stays.
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
