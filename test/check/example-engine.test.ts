// The engine of the tutorial keeps the contract that all engines keep.
import type { Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext } from '#engines/engine.ts';
import { describeEngine } from '../engines/contract.ts';
import { upperEngine } from './example-engine.ts';

const target: Target = {
  endpoint: 'upper',
  servedEntity: 'upper',
  engine: upperEngine.kind,
  task: 'llm/v1/chat',
  fingerprint: 'upper@1',
  model: 'upper@1',
};
const context: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};

describeEngine('upper', {
  task: 'llm/v1/chat',
  open: () => upperEngine.open(target, context),
  inputs: [
    { messages: [{ role: 'user', content: 'one duck' }] },
    { messages: [{ role: 'user', content: 'two geese, and a much longer text after them' }] },
  ],
});
