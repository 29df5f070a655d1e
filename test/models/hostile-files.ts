// Model files that somebody has made to do harm, or that were damaged on their way. Written into a folder of the
// test; nothing of them is ever run, which the test sees by a file that they would leave.
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { PENGUINS } from '../app/support.ts';

export interface Hostile {
  readonly title: string;
  /** Makes it and gives what is to be registered. */
  make(folder: string): string;
  /** What the message must say. */
  readonly says: RegExp;
}

const SKLEARN = `flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: MODEL, predict_fn: predict}
  sklearn: {pickled_model: MODEL, serialization_format: cloudpickle}
`;

function directory(
  folder: string,
  mlmodel: string,
  more: Readonly<Record<string, string | Buffer>> = {},
): string {
  const path = join(folder, 'model');
  mkdirSync(path);
  writeFileSync(join(path, 'MLmodel'), mlmodel);
  for (const [name, content] of Object.entries(more)) writeFileSync(join(path, name), content);
  return path;
}

/** A pickle that makes a file when it is loaded: `os.system('touch MARK')`. */
export const pickleThatTouches = (mark: string): string => `cos\nsystem\n(S'touch ${mark}'\ntR.`;

const onnx = (): Buffer => readFileSync(join(PENGUINS, 'penguins.onnx'));

export const HOSTILE: readonly Hostile[] = [
  {
    title: 'an ONNX file that was cut off',
    make: (folder) => {
      const path = join(folder, 'cut.onnx');
      const whole = onnx();
      writeFileSync(path, whole);
      truncateSync(path, Math.floor(whole.length / 2));
      return path;
    },
    says: /cut\.onnx/,
  },
  {
    title: 'an ONNX file of random bytes',
    make: (folder) => {
      const path = join(folder, 'noise.onnx');
      writeFileSync(path, Buffer.from(Array.from({ length: 4_096 }, (_, at) => (at * 7_919) % 251)));
      return path;
    },
    says: /noise\.onnx/,
  },
  {
    title: 'an empty ONNX file',
    make: (folder) => {
      const path = join(folder, 'empty.onnx');
      writeFileSync(path, '');
      return path;
    },
    says: /empty\.onnx/,
  },
  {
    title: 'a cut ONNX file in a directory of MLflow',
    make: (folder) =>
      directory(folder, 'flavors:\n  onnx: {data: model.onnx}\n', { 'model.onnx': onnx().subarray(0, 500) }),
    says: /model\.onnx/,
  },
  {
    title: 'a pickle, without --allow-code',
    make: (folder) =>
      directory(folder, SKLEARN.replaceAll('MODEL', 'model.pkl'), {
        'model.pkl': pickleThatTouches(join(folder, 'was-run')),
      }),
    says: /pickle[\s\S]*--allow-code/,
  },
  {
    title: 'a model of Python code, without --allow-code',
    make: (folder) =>
      directory(
        folder,
        'flavors:\n  python_function: {loader_module: mlflow.pyfunc.loaders.code_model, model_code_path: agent.py}\n',
        { 'agent.py': `open(${JSON.stringify(join(folder, 'was-run'))}, "w")\n` },
      ),
    says: /--allow-code/,
  },
  {
    title: 'an MLmodel whose model lies above its directory',
    make: (folder) => {
      writeFileSync(join(folder, 'outside.onnx'), onnx());
      return directory(folder, 'flavors:\n  onnx: {data: ../outside.onnx}\n');
    },
    says: /\.\.\/outside\.onnx/,
  },
  {
    title: 'an MLmodel whose model has an absolute path',
    make: (folder) => directory(folder, 'flavors:\n  onnx: {data: /etc/hostname}\n'),
    says: /\/etc\/hostname/,
  },
  {
    title: 'an MLmodel whose model is a link that leads out',
    make: (folder) => {
      writeFileSync(join(folder, 'outside.onnx'), onnx());
      const path = directory(folder, 'flavors:\n  onnx: {data: model.onnx}\n');
      symlinkSync(join(folder, 'outside.onnx'), join(path, 'model.onnx'));
      return path;
    },
    says: /link that leads out/,
  },
  {
    title: 'an MLmodel that grows with its aliases',
    make: (folder) => {
      const levels = Array.from({ length: 12 }, (_, at) => {
        const inner = at === 0 ? '"x"' : `*l${at - 1}`;
        return `l${at}: &l${at} [${Array(10).fill(inner).join(', ')}]`;
      });
      return directory(folder, `${levels.join('\n')}\nflavors: {onnx: {data: model.onnx}}\n`, {
        'model.onnx': onnx(),
      });
    },
    says: /MLmodel/,
  },
  {
    title: 'an MLmodel that is no YAML',
    make: (folder) => directory(folder, 'flavors: [unclosed\n\t{'),
    says: /MLmodel/,
  },
  {
    title: 'an XGBoost file that was cut off',
    make: (folder) => {
      const path = join(folder, 'model.json');
      writeFileSync(path, '{"learner": {"gradient_booster": {"model": {"trees": [{"left_children": [1,');
      return path;
    },
    says: /not whole JSON/,
  },
  {
    title: 'a zip that unpacks to a thousand times its size',
    make: (folder) => {
      const path = join(folder, 'bomb.zip');
      const zeros = Buffer.alloc(400_000_000);
      writeFileSync(path, zip([{ name: 'model.onnx', content: zeros }]));
      return path;
    },
    says: /bomb\.zip.*times its size/,
  },
  {
    title: 'a zip with an entry that leads out',
    make: (folder) => {
      const path = join(folder, 'slip.zip');
      writeFileSync(
        path,
        zip([
          { name: '../was-run', content: Buffer.from('x') },
          { name: 'model.onnx', content: onnx() },
        ]),
      );
      return path;
    },
    says: /\.\.\/was-run/,
  },
  {
    title: 'a zip that was cut off',
    make: (folder) => {
      const path = join(folder, 'cut.zip');
      writeFileSync(path, zip([{ name: 'model.onnx', content: onnx() }]).subarray(0, 700));
      return path;
    },
    says: /cut\.zip/,
  },
];

interface Entry {
  readonly name: string;
  readonly content: Buffer;
}

/** A zip archive, whatever its names are; programs that write archives refuse some of them. */
export function zip(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = [];
  const directoryParts: Buffer[] = [];
  let offset = 0;
  for (const { name, content } of entries) {
    const packed = deflateRawSync(content, { level: 1 });
    const nameBytes = Buffer.from(name);
    // From the version to the length of the extra field, as in both headers.
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, nameBytes, packed]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    directoryParts.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, rest, nameBytes);
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directoryParts);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, central, end]);
}
