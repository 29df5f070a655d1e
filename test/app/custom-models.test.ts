// A model directory of MLflow from registration to answers, by SQL and by HTTP: what is said of the row that does not
// fit, and that the permission to run code is asked for at every door.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { SILENT_LOG } from '#core/log.ts';
import { startHttpServer } from '#server/http/server.ts';
import { zipOf } from '../engines/mlflow-archives.ts';
import { PENGUINS, rowsOf, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const NAMES = ['bill_length_mm', 'bill_depth_mm', 'flipper_length_mm', 'body_mass_g'];
const INPUTS = JSON.stringify(NAMES.map((name) => ({ type: 'double', name, required: true })));
const MLMODEL = `flavors:
  onnx: {data: penguins.onnx, onnx_version: 1.16.0}
  python_function: {loader_module: mlflow.onnx, data: penguins.onnx}
signature:
  inputs: '${INPUTS}'
  outputs: '[{"type": "string", "name": "species"}]'
`;
const ADELIE = { bill_length_mm: 39.1, bill_depth_mm: 18.7, flipper_length_mm: 181, body_mass_g: 3750 };

it('an MLflow model in a zip file predicts by SQL and by HTTP a moment after it was registered', async () => {
  const directory = workplace.directory();
  const path = join(directory, 'penguins.zip');
  const files = ['penguins.onnx', 'signature.json'].map((name) => ({
    name: `model/${name}`,
    content: readFileSync(join(PENGUINS, name)),
  }));
  writeFileSync(path, zipOf({ name: 'model/MLmodel', content: MLMODEL }, ...files));
  const app = await workplace.app({ dataDir: join(directory, 'data') });
  const session = await app.openSession();
  await session.run(`CALL duckserve_register_model('penguins', '${path}')`);
  const struct = NAMES.map((name) => `${name}: ${ADELIE[name as keyof typeof ADELIE]}`).join(', ');
  expect(await rowsOf(session, `SELECT predict('penguins', {${struct}, id: 7})`)).toEqual([['Adelie']]);

  const { serving, registry, identity, openSession, createBudget } = app;
  const deps = { serving, registry, identity, openSession, createBudget, log: SILENT_LOG, version: '0.0.0' };
  const server = await startHttpServer(deps, { port: 0 });
  workplace.onClear(() => server.close());
  const invoke = async (records: readonly object[]) => {
    const response = await fetch(`${server.url}/serving-endpoints/penguins/invocations`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ dataframe_records: records }),
    });
    return [response.status, await response.json()];
  };
  expect(await invoke([ADELIE, ADELIE])).toEqual([200, { predictions: ['Adelie', 'Adelie'] }]);
  const [status, answer] = await invoke([ADELIE, ADELIE, { ...ADELIE, body_mass_g: 'heavy' }]);
  expect(status).toBe(400);
  const { message } = answer as { message: string };
  expect(message).toContain(
    'Row 3 of 3: The features do not fit model "penguins@1": "body_mass_g" is "heavy"',
  );
  expect(message).not.toContain('39.1');
});

it('a pickle is refused in SQL until an administrator allows it', async () => {
  const directory = workplace.directory();
  writeFileSync(
    join(directory, 'MLmodel'),
    'flavors: {python_function: {loader_module: mlflow.sklearn, model_path: m.pkl}}',
  );
  writeFileSync(join(directory, 'm.pkl'), 'never read');
  const app = await workplace.app({
    dataDir: join(directory, 'data'),
    env: { DUCKSERVE_PYTHON: process.execPath },
  });
  const session = await app.openSession();
  const register = (rest = '') => session.run(`CALL duckserve_register_model('m', '${directory}'${rest})`);
  await expect(register()).rejects.toMatchObject({
    code: 'INVALID_PARAMETER',
    message: expect.stringContaining('m.pkl'),
  });
  await expect(register(', allow_code => false')).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
  // Allowed, and found out that what was configured is no Python.
  await expect(register(', allow_code => true')).rejects.toMatchObject({ code: 'MODEL_NOT_AVAILABLE' });
});
