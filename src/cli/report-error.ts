// A failure as a person reads it on a terminal: one line, the code in brackets; causes only when asked for.
import { type ServingError, toServingError } from '#core/errors.ts';
import { oneLine } from './cells.ts';

/** DuckDB shows where a statement is wrong in lines of their own. On a terminal they are kept below the line. */
const POSITION = /\n\s*(LINE \d+:[^\n]*)\n([^\n]*\^[^\n]*)/;

export function errorText(
  thrown: unknown,
  options: { readonly isVerbose: boolean; readonly isTty: boolean },
): string {
  const error = toServingError(thrown);
  const position = POSITION.exec(error.message);
  let message = error.message;
  let below = '';
  if (position !== null) {
    message = message.replace(position[0], options.isTty ? '' : `\n(${position[1] ?? ''})`);
    if (options.isTty) below = `\n${visible(position[1] ?? '')}\n${visible(position[2] ?? '')}`;
  }
  const line = oneLine(message.trim().replace(/\s*[\r\n]+\s*/g, ' '));
  const text = `error: ${line} [${error.code}]${below}\n`;
  return options.isVerbose ? text + causeText(error) : text;
}

function visible(line: string): string {
  return line.split('\t').map(oneLine).join('\t');
}

function causeText(error: ServingError): string {
  let text = Object.keys(error.details).length > 0 ? `  details: ${JSON.stringify(error.details)}\n` : '';
  text += indent(error.stack ?? '');
  let cause: unknown = error.cause;
  for (let depth = 0; cause !== undefined && cause !== null && depth < 8; depth += 1) {
    text += `  caused by ${indent(cause instanceof Error ? (cause.stack ?? String(cause)) : String(cause)).trimStart()}`;
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return text;
}

function indent(text: string): string {
  return text === '' ? '' : `${text.replace(/^/gm, '  ')}\n`;
}
