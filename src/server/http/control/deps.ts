// What the control plane is given of the registry, as a shape.
import type { Principal } from '#core/call.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import type { EndpointState } from '#registry/registry.ts';

export type { EndpointState };

/** Each throws ENDPOINT_NOT_FOUND; what changes something also INVALID_PARAMETER and RESOURCE_CONFLICT. */
export interface ControlRegistry {
  listEndpoints(): readonly Endpoint[];
  getEndpoint(name: string): Endpoint;
  resolve(name: string, options: { readonly servedEntity?: string }): { readonly target: Target };
  stateOf(endpoint: Endpoint): EndpointState;
  createEndpoint(
    spec: unknown,
    principal: Principal,
    options?: { readonly isLoaded?: boolean },
  ): Promise<Endpoint>;
  deleteEndpoint(name: string): Promise<void>;
  updateEndpointConfig(name: string, spec: unknown, principal?: Principal): Promise<Endpoint>;
  setGateway(name: string, gateway: unknown): Promise<Endpoint>;
  setTags(name: string, change: unknown): Promise<Endpoint>;
  changeEndpointSettings(name: string, change: JsonObject): Promise<Endpoint>;
  stopEndpoint(name: string): Promise<Endpoint>;
  startEndpoint(name: string): Promise<Endpoint>;
  entityLogs(endpoint: string, entity: string): readonly string[];
  entityBuildLogs(endpoint: string, entity: string): readonly string[];
  noteEntity(endpoint: string, entity: string, text: string): void;
}
