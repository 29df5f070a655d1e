// Answers of providers as bytes: what is read, what is refused, and that it does not matter how the bytes are cut.
// Held against Node's own parser wherever both accept.
import http from 'node:http';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { WireFailure } from '#engines/http/wire/failure.ts';
import { MAX_HEAD_BYTES } from '#engines/http/wire/head.ts';
import { ResponseReader } from '#engines/http/wire/response.ts';

interface Read {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly isReusable: boolean;
  /** Bytes after the answer. */
  readonly left: number;
}

/** Feeds the pieces, then the end of the connection. */
function read(pieces: readonly Buffer[]): Read {
  let body = '';
  let ends = 0;
  const reader = new ResponseReader({
    onHead() {},
    onBytes(bytes) {
      if (ends > 0) throw new Error('bytes after the end');
      body += bytes.toString('latin1');
    },
    onEnd() {
      ends++;
    },
  });
  let left = 0;
  for (const piece of pieces) {
    left += reader.isEnded ? piece.length : piece.length - reader.feed(piece, 0, piece.length);
  }
  reader.finish();
  const { head } = reader;
  if (!head || ends !== 1) throw new Error(`no answer, or ${ends} ends`);
  return { status: head.status, headers: head.headers(), body, isReusable: head.isReusable, left };
}

const readText = (text: string): Read => read([Buffer.from(text, 'latin1')]);

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [...new Set(at.map((place) => place % (bytes.length + 1)))].sort(
    (left, right) => left - right,
  );
  return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length));
}

/** The same through Node's client, over a pipe that hands it the pieces one by one. */
function readByNode(pieces: readonly Buffer[]): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    let isSent = false;
    const pipe = new Duplex({
      read() {},
      write(_chunk, _encoding, done) {
        if (!isSent) {
          isSent = true;
          for (const piece of pieces) pipe.push(piece);
          pipe.push(null);
        }
        done();
      },
    });
    const request = http.request({ createConnection: () => pipe, method: 'POST', path: '/' });
    request.on('error', reject);
    request.on('response', (response) => {
      let body = '';
      response.setEncoding('latin1');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    request.end('x');
  });
}

const OK = 'HTTP/1.1 200 OK\r\n';

describe('wire: answers that are read', () => {
  const good: Readonly<Record<string, readonly [text: string, expected: Partial<Read>]>> = {
    'a body of a given length': [
      `${OK}Content-Length: 5\r\n\r\nducks`,
      { body: 'ducks', isReusable: true, left: 0 },
    ],
    'an empty body': [`${OK}Content-Length: 0\r\n\r\n`, { body: '', isReusable: true }],
    'blanks and tabs around a length': [`${OK}Content-Length: \t 5\t \r\n\r\nducks`, { body: 'ducks' }],
    'no reason after the status': ['HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx', { status: 200, body: 'x' }],
    'an empty reason': ['HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx', { status: 200, body: 'x' }],
    'two blanks before the reason': ['HTTP/1.1 200  Fine\r\nContent-Length: 1\r\n\r\nx', { status: 200 }],
    'a reason in another language': [
      'HTTP/1.1 500 Oriëntatieprobleem\r\nContent-Length: 0\r\n\r\n',
      { status: 500 },
    ],
    'a body that ends with the connection': [
      `${OK}X-A: 1\r\n\r\nall of it`,
      { body: 'all of it', isReusable: false },
    ],
    'what looks like a second answer, but has no length': [
      `${OK}\r\nHTTP/1.1 200 OK\r\n\r\n`,
      { body: 'HTTP/1.1 200 OK\r\n\r\n', isReusable: false },
    ],
    chunks: [
      `${OK}Transfer-Encoding: chunked\r\n\r\n5\r\nducks\r\n1\r\n!\r\n0\r\n\r\n`,
      { body: 'ducks!', isReusable: true },
    ],
    'chunk sizes in both cases and with leading zeros': [
      `${OK}transfer-encoding: Chunked\r\n\r\n00A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n`,
      { body: '01234567890123456789' },
    ],
    'chunk extensions, quoted ones with semicolons too': [
      `${OK}Transfer-Encoding: chunked\r\n\r\n2;a;b=c\r\nok\r\n1;q="x; y"\r\n.\r\n0;last\r\n\r\n`,
      { body: 'ok.' },
    ],
    trailers: [
      `${OK}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n`,
      { body: 'ok', left: 0 },
    ],
    'a header that only begins like a length': [
      `${OK}Content-Length-Hint: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n`,
      { body: 'ok' },
    ],
    'interim answers before the real one': [
      `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}Content-Length: 2\r\n\r\nok`,
      { status: 200, body: 'ok' },
    ],
    '204 has no body, whatever follows': [
      'HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n',
      { status: 204, body: '', left: 17 },
    ],
    '304 has none either, with a length': [
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n',
      { status: 304, body: '' },
    ],
    'Connection: close': [
      `${OK}Content-Length: 2\r\nConnection: close\r\n\r\nok`,
      { body: 'ok', isReusable: false },
    ],
    'close among other words': [
      `${OK}Content-Length: 2\r\nConnection: foo, Close\r\n\r\nok`,
      { isReusable: false },
    ],
    'Proxy-Connection means nothing': [
      `${OK}Content-Length: 2\r\nProxy-Connection: close\r\n\r\nok`,
      { isReusable: true },
    ],
    'HTTP/1.0 is closed unless it says otherwise': [
      'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
      { isReusable: false },
    ],
    'HTTP/1.0 with keep-alive': [
      'HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok',
      { isReusable: true },
    ],
    'bytes after the answer are left': [`${OK}Content-Length: 2\r\n\r\nokHTTP/1.1`, { body: 'ok', left: 8 }],
    'a header without a value': [
      `${OK}X-Empty:\r\nContent-Length: 2\r\n\r\nok`,
      { headers: { 'x-empty': '', 'content-length': '2' } },
    ],
    'a header that comes twice': [
      `${OK}Via: a\r\nVIA: b\r\nContent-Length: 0\r\n\r\n`,
      { headers: { via: 'a, b', 'content-length': '0' } },
    ],
    'a header called __proto__': [`${OK}__proto__: x\r\nContent-Length: 0\r\n\r\n`, { status: 200 }],
  };
  test.each(Object.entries(good))('%s', (_name, [text, expected]) => {
    expect(readText(text)).toMatchObject(expected);
  });

  test('the wait of Keep-Alive is known in milliseconds', () => {
    const reader = new ResponseReader({ onHead() {}, onBytes() {}, onEnd() {} });
    const bytes = Buffer.from(`${OK}Keep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n`);
    reader.feed(bytes, 0, bytes.length);
    expect(reader.head?.keepAliveMs).toBe(5_000);
  });
});

describe('wire: answers that are refused', () => {
  const bad: Readonly<Record<string, string>> = {
    'another protocol': 'HTP/1.1 200 OK\r\n\r\n',
    'a major version of two digits': 'HTTP/11.1 200 OK\r\n\r\n',
    'a major version with a zero': 'HTTP/01.1 200 OK\r\n\r\n',
    'a minor version of two digits': 'HTTP/1.01 200 OK\r\n\r\n',
    'a version there is not': 'HTTP/1.7 200 OK\r\n\r\n',
    'HTTP/2 in the clear': 'HTTP/2.0 200 OK\r\n\r\n',
    'a tab after the version': 'HTTP/1.1\t200 OK\r\n\r\n',
    'two blanks before the status': 'HTTP/1.1  200 OK\r\n\r\n',
    'a status of one digit': 'HTTP/1.1 2 OK\r\n\r\n',
    'a status of four digits': 'HTTP/1.1 2000 OK\r\n\r\n',
    'a status below 100': 'HTTP/1.1 099 OK\r\n\r\n',
    'an empty line before the answer': `\r\n${OK}Content-Length: 0\r\n\r\n`,
    'a carriage return before the answer': `\r${OK}Content-Length: 0\r\n\r\n`,
    'bare line feeds': 'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
    'one bare line feed among good lines': `${OK}X-A: 1\nContent-Length: 0\r\n\r\n`,
    'headers parted by a carriage return alone': `${OK}X-A: 1\rX-B: 2\r\n\r\n`,
    'a carriage return at the end of a value': `${OK}X-A: 1\r\r\nContent-Length: 0\r\n\r\n`,
    'a folded line': `${OK}X-A: 1\r\n more\r\nContent-Length: 0\r\n\r\n`,
    'a folded Transfer-Encoding': `${OK}Transfer-Encoding: chunked\r\n\tabc\r\n\r\n0\r\n\r\n`,
    'a blank before the first header': `HTTP/1.1 200 OK\r\n X-A: 1\r\n\r\n`,
    'a blank before the colon': `${OK}Content-Length : 2\r\n\r\nok`,
    'a name with a blank in it': `${OK}Content Length: 2\r\n\r\nok`,
    'a header without a name': `${OK}: 2\r\n\r\n`,
    'a line without a colon': `${OK}nonsense\r\n\r\n`,
    'a zero byte in a value': `${OK}X-A: a\0b\r\n\r\n`,
    'a zero byte in a name': `${OK}X-\0A: b\r\n\r\n`,
    'two equal lengths': `${OK}Content-Length: 2\r\nContent-Length: 2\r\n\r\nok`,
    'two different lengths': `${OK}Content-Length: 2\r\nContent-Length: 3\r\n\r\nok`,
    'a list of lengths': `${OK}Content-Length: 2, 2\r\n\r\nok`,
    'an empty length': `${OK}Content-Length:\r\n\r\n`,
    'a length with a sign': `${OK}Content-Length: +2\r\n\r\nok`,
    'a negative length': `${OK}Content-Length: -2\r\n\r\nok`,
    'a length in hexadecimal': `${OK}Content-Length: 0x2\r\n\r\nok`,
    'a length with a blank in it': `${OK}Content-Length: 1 2\r\n\r\n`,
    'a length no number can hold': `${OK}Content-Length: 99999999999999999999\r\n\r\n`,
    'a length and chunks': `${OK}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n`,
    'chunks and a length': `${OK}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n`,
    'an empty Transfer-Encoding': `${OK}Transfer-Encoding:\r\nContent-Length: 2\r\n\r\nok`,
    'another Transfer-Encoding': `${OK}Transfer-Encoding: gzip\r\n\r\nok`,
    'chunked and then another': `${OK}Transfer-Encoding: chunked, gzip\r\n\r\nok`,
    'chunked twice in one word': `${OK}Transfer-Encoding: chunkedchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n`,
    'two Transfer-Encodings': `${OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nok`,
    'chunks in HTTP/1.0': 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'a chunk without a size': `${OK}Transfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n`,
    'a chunk size that is no number': `${OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`,
    'a chunk size with 0x': `${OK}Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n`,
    'a negative chunk size': `${OK}Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n`,
    'blanks after a chunk size': `${OK}Transfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n`,
    'an extension without a semicolon': `${OK}Transfer-Encoding: chunked\r\n\r\n2 a=b\r\nok\r\n0\r\n\r\n`,
    'a semicolon without an extension': `${OK}Transfer-Encoding: chunked\r\n\r\n2;\r\nok\r\n0\r\n\r\n`,
    'a quote in an extension that is not closed': `${OK}Transfer-Encoding: chunked\r\n\r\n2;a="b\r\nok\r\n0\r\n\r\n`,
    'a line feed in an extension': `${OK}Transfer-Encoding: chunked\r\n\r\n2;a\nok\r\n0\r\n\r\n`,
    'a chunk size that overflows': `${OK}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\nok`,
    'a chunk longer than its size': `${OK}Transfer-Encoding: chunked\r\n\r\n2\r\noki\r\n0\r\n\r\n`,
    'a chunk that ends in a bare line feed': `${OK}Transfer-Encoding: chunked\r\n\r\n2\r\nok\n0\r\n\r\n`,
    'a size line that ends in a bare line feed': `${OK}Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n`,
    'a trailer that is no header': `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nnonsense\r\n\r\n`,
    'a folded trailer': `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\n b\r\n\r\n`,
    'an upgrade nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n',
    'interim answers without end': 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(20),
    'too many headers': `${OK}${'X-A: 1\r\n'.repeat(200)}\r\n`,
    'a head that is too long': `${OK}X-A: ${'a'.repeat(MAX_HEAD_BYTES)}\r\n\r\n`,
    'a head without end': `${OK}X-A: ${'a'.repeat(2 * MAX_HEAD_BYTES)}`,
    'an extension without end': `${OK}Transfer-Encoding: chunked\r\n\r\n2;${'a'.repeat(10_000)}`,
    'trailers without end': `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\n${'A: 1\r\n'.repeat(10_000)}`,
    'nothing at all': '',
    'a cut head': 'HTTP/1.1 200 OK\r\nContent-Le',
    'a cut body': `${OK}Content-Length: 5\r\n\r\nduc`,
    'a cut chunk': `${OK}Transfer-Encoding: chunked\r\n\r\n5\r\nduc`,
    'chunks without the last one': `${OK}Transfer-Encoding: chunked\r\n\r\n5\r\nducks\r\n`,
    'a last chunk without its empty line': `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\n`,
  };
  test.each(Object.entries(bad))('%s', (_name, text) => {
    expect(() => readText(text)).toThrow(WireFailure);
  });

  test('and it does not matter how the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(bad).filter((text) => text.length < 4_000)),
        places,
        (text, at) => {
          expect(() => read(cut(Buffer.from(text, 'latin1'), at))).toThrow(WireFailure);
        },
      ),
    );
  });
});

const places = fc.array(fc.nat(5_000), { maxLength: 12 });
const visible = fc.string({ unit: fc.constantFrom(...'abc XYZ09;:,="\u00e9'), maxLength: 20 });
const headerName = fc.stringMatching(/^X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}$/);
const bodyText = fc.string({ unit: fc.constantFrom('\r', '\n', '0', 'a', ';', '\u00ff'), maxLength: 200 });
const chunkList = fc.array(
  fc.tuple(
    fc.string({ unit: fc.constantFrom('\r', '\n', '0', 'a'), minLength: 1, maxLength: 40 }),
    fc.boolean(),
  ),
  { maxLength: 8 },
);

const answers = fc
  .record({
    status: fc.constantFrom(200, 201, 400, 429, 500, 599),
    reason: visible,
    headers: fc.array(fc.tuple(headerName, visible), { maxLength: 6 }),
    isChunked: fc.boolean(),
    body: bodyText,
    chunks: chunkList,
    trailers: fc.array(fc.tuple(headerName, visible), { maxLength: 2 }),
    interim: fc.nat(2),
  })
  .map(({ status, reason, headers, isChunked, body, chunks, trailers, interim }) => {
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const before = 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'.repeat(interim);
    const start = `${before}HTTP/1.1 ${status} ${reason}\r\n${lines}`;
    if (!isChunked) {
      return { text: `${start}Content-Length: ${body.length}\r\n\r\n${body}`, status, body };
    }
    const parts = chunks.map(([data, isExtended]) => {
      const size = data.length.toString(16);
      return `${size}${isExtended ? ';a=b;c="d e"' : ''}\r\n${data}\r\n`;
    });
    const end = `0\r\n${trailers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
    return {
      text: `${start}Transfer-Encoding: chunked\r\n\r\n${parts.join('')}${end}`,
      status,
      body: chunks.map(([data]) => data).join(''),
    };
  });

describe('wire: against Node', () => {
  test('answers are read alike however they are cut', async () => {
    await fc.assert(
      fc.asyncProperty(answers, places, async ({ text, status, body }, at) => {
        const pieces = cut(Buffer.from(text, 'latin1'), at);
        const own = read(pieces);
        expect(own).toMatchObject({ status, body, left: 0 });
        expect(await readByNode(pieces)).toEqual({ status: own.status, body: own.body });
      }),
      { numRuns: 300 },
    );
  });

  test('a byte changed at random is refused, or means the same to Node', async () => {
    await fc.assert(
      fc.asyncProperty(answers, fc.nat(), fc.nat(255), async ({ text }, where, byte) => {
        const bytes = Buffer.from(text, 'latin1');
        bytes[where % bytes.length] = byte;
        let own: Read;
        try {
          own = read([bytes]);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(WireFailure);
          return;
        }
        // What is left over would be the next answer; Node's client is not shown it.
        const node = await readByNode([bytes.subarray(0, bytes.length - own.left)]).catch(() => undefined);
        if (node) expect(node).toEqual({ status: own.status, body: own.body });
      }),
      { numRuns: 500 },
    );
  });
});
