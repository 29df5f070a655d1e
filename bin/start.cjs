// Starts the built program (dist/) where there is one, and the TypeScript sources through tsx in a checkout.
const { existsSync } = require('node:fs');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');

const root = join(__dirname, '..');
const source = join(root, 'src', 'main.ts');
const built = join(root, 'dist', 'main.js');

async function start() {
  if (existsSync(source)) {
    const { register } = await import('tsx/esm/api');
    register();
    await import(pathToFileURL(source).href);
  } else {
    await import(pathToFileURL(built).href);
  }
}

start().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
