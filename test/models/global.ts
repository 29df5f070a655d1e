// Started once for all tests of models: Python with the libraries, models that they have trained, each registered by
// the command line, and `duckserve serve`. Tests see it by `stage()`.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { Workplace } from '../app/support.ts';
import { makeModels, openPython } from './python.ts';
import { expectedOf, pathOf, type Registration, type Stage } from './stage.ts';

/** Registered once more with `--convert`, and the engine that then serves them without Python. */
const CONVERTED: Readonly<Record<string, string>> = {
  'sklearn-classifier': 'onnx',
  'sklearn-regressor': 'onnx',
  'lightgbm-classifier': 'trees',
};

export default async function open(project: TestProject): Promise<() => Promise<void>> {
  const workplace = new Workplace();
  try {
    project.provide('models', await openStage(workplace));
  } catch (error) {
    await workplace.clear();
    throw error;
  }
  return () => workplace.clear();
}

async function openStage(workplace: Workplace): Promise<Stage> {
  const python = await openPython();
  if ('reason' in python) {
    console.log(`Tests of models are skipped: ${python.reason}`);
    return { python, url: '', pid: 0, admin: '', folder: '', registrations: [] };
  }
  const dataDir = workplace.directory();
  const folder = await makeModels(python.path, join(dataDir, 'trained'));
  const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const env = { DUCKSERVE_PYTHON: python.path };
  const registrations: Registration[] = [];
  const register = async (name: string, model: string, engine: string, ...flags: readonly string[]) => {
    const path = pathOf(folder, expectedOf(folder, model));
    const args = ['models', 'register', name, path, '--allow-code', ...flags];
    registrations.push({ name, model, engine, ...(await workplace.run(args, { dataDir, env })) });
  };
  for (const { name } of names) {
    await register(name, name, expectedOf(folder, name).engine);
    const converted = CONVERTED[name];
    if (converted !== undefined) await register(`converted-${name}`, name, converted, '--convert');
  }
  const created = await workplace.run(['tokens', 'create', '--principal', 'ann@example.org', '--admin'], {
    dataDir,
  });
  const server = workplace.program(['serve', '--port', '0'], { dataDir, env });
  const [, url = ''] = await server.stdoutMatch(/duckserve listens on (http:\S+)/);
  const admin = created.stdout.trim();
  return { python, url, pid: server.child.pid ?? 0, admin, folder, registrations };
}
