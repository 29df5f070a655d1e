// Signature version 4 from Amazon's specification, to check what the engine signs: written apart from the package
// that the engine uses, and held to the published test vectors itself.
import { createHash, createHmac } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

export interface SignedRequest {
  readonly method: string;
  /** Path and query as they came. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export interface SigningKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
  readonly service: string;
  readonly sessionToken?: string;
}

/** Why the signature is not accepted; undefined when it is right. */
export function findFault(request: SignedRequest, keys: SigningKeys): string | undefined {
  const { headers } = request;
  const given = /^AWS4-HMAC-SHA256 Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
    headers.authorization ?? '',
  );
  if (!given) return 'The Authorization header is not one of Signature Version 4.';
  const [, credential = '', names = '', signature = ''] = given;
  const date = String(headers['x-amz-date'] ?? '');
  const scope = `${date.slice(0, 8)}/${keys.region}/${keys.service}/aws4_request`;
  if (credential !== `${keys.accessKeyId}/${scope}`) return `Credential should be scoped to ${scope}.`;
  const signed = names.split(';');
  const needed = ['host', 'x-amz-date', ...(keys.sessionToken === undefined ? [] : ['x-amz-security-token'])];
  const missing = needed.find((name) => !signed.includes(name));
  if (missing !== undefined) return `Header ${missing} has to be signed.`;
  if (keys.sessionToken !== undefined && headers['x-amz-security-token'] !== keys.sessionToken) {
    return 'The security token included in the request is invalid.';
  }
  const hash = headers['x-amz-content-sha256'];
  if (hash !== undefined && hash !== sha256(request.text))
    return 'The hash of the body is not that of the body.';
  const expected = signatureOf(request, signed, date, keys);
  if (expected === signature) return undefined;
  return 'The request signature we calculated does not match the signature you provided.';
}

export function signatureOf(
  request: SignedRequest,
  signedHeaders: readonly string[],
  date: string,
  { secretAccessKey, region, service }: SigningKeys,
): string {
  const [path = '/', query = ''] = request.url.split('?', 2);
  const names = [...signedHeaders].sort();
  const lines = names.map((name) => {
    const value = request.headers[name];
    return `${name}:${String(value).trim().replace(/\s+/g, ' ')}\n`;
  });
  const canonical = [
    request.method,
    // Encoded once more than it is sent, as for every service but S3.
    path.split('/').map(encode).join('/'),
    query
      .split('&')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const [name = '', value = ''] = pair.split('=', 2);
        return `${encode(decodeURIComponent(name))}=${encode(decodeURIComponent(value))}`;
      })
      .sort()
      .join('&'),
    lines.join(''),
    names.join(';'),
    sha256(request.text),
  ].join('\n');
  const day = date.slice(0, 8);
  const toSign = ['AWS4-HMAC-SHA256', date, `${day}/${region}/${service}/aws4_request`, sha256(canonical)];
  let key: Buffer = Buffer.from(`AWS4${secretAccessKey}`);
  for (const step of [day, region, service, 'aws4_request']) key = hmac(key, step);
  return hmac(key, toSign.join('\n')).toString('hex');
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
