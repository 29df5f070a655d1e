// What the control plane needs of a registry, for tests of the door that do not go there: always ready, and a
// change is a mistake of the test.
import type { ControlRegistry } from '../../../src/server/http/control/deps.ts';

const refuse = () => {
  throw new Error('this test has no control plane');
};

export const NO_CONTROL: Omit<
  ControlRegistry,
  'listEndpoints' | 'getEndpoint' | 'createEndpoint' | 'deleteEndpoint'
> = {
  resolve: refuse,
  stateOf: () => ({ isReady: true, update: 'NOT_UPDATING', message: '' }),
  updateEndpointConfig: refuse,
  setGateway: refuse,
  setTags: refuse,
  changeEndpointSettings: refuse,
  stopEndpoint: refuse,
  startEndpoint: refuse,
  entityLogs: refuse,
  entityBuildLogs: refuse,
  noteEntity: () => {},
};
