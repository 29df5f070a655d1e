// Where Bedrock is found in a region. Not here: what is asked there (bedrock.ts).
import { ServingError } from '#core/errors.ts';

export function addressOf(region: string): string {
  if (!/^[a-z0-9-]+$/.test(region)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `"${region}" is no region of AWS. Give one such as "us-east-1".`,
    );
  }
  return `https://bedrock-runtime.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`;
}
