// The certificate of the HTTP door: read from two files, and read again when they change, without dropping anybody.
// A pair that does not fit together (half written, key of another certificate) leaves the old one in place.
import { unwatchFile, watchFile } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface WatchedTls {
  readonly options: SecureContextOptions;
  /** Heard with the new pair after the files have changed. */
  onChange(listener: (options: SecureContextOptions) => void): void;
  close(): void;
}

/** Looking at two files once a second costs nothing, and works where change events do not (links, network disks). */
const LOOK_EVERY_MS = 1_000;

/** Throws INVALID_PARAMETER when the files cannot be read or do not fit together. */
export async function openTls(files: TlsFiles, log: Log): Promise<WatchedTls> {
  const { certFile, keyFile } = files;
  const options = await readPair(files);
  let listener: ((options: SecureContextOptions) => void) | undefined;
  let reading: Promise<void> = Promise.resolve();
  const reload = () => {
    reading = reading.then(async () => {
      try {
        listener?.(await readPair(files));
        log.info({ certFile }, 'the TLS certificate was read again');
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        log.warn({ certFile, keyFile, message }, 'the new TLS certificate cannot be used; the old one stays');
      }
    });
  };
  for (const file of [certFile, keyFile])
    watchFile(file, { interval: LOOK_EVERY_MS, persistent: false }, reload);
  return {
    options,
    onChange: (heard) => {
      listener = heard;
    },
    close: () => {
      for (const file of [certFile, keyFile]) unwatchFile(file, reload);
    },
  };
}

async function readPair({ certFile, keyFile }: TlsFiles): Promise<SecureContextOptions> {
  const [cert, key] = await Promise.all([readNamed('--tls-cert', certFile), readNamed('--tls-key', keyFile)]);
  const options: SecureContextOptions = { cert, key, minVersion: 'TLSv1.2' };
  try {
    createSecureContext(options);
  } catch (error) {
    // OpenSSL's text names the problem and holds nothing of the key.
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError(
      'INVALID_PARAMETER',
      `The certificate ${certFile} and the key ${keyFile} cannot be used together: ${reason}. Give PEM files that belong together.`,
    );
  }
  return options;
}

async function readNamed(flag: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError('INVALID_PARAMETER', `${flag} ${file} cannot be read: ${reason}.`);
  }
}
