// The progress line as text: pure functions from numbers to one line. Drawing it is status-line.ts.
import type { Progress } from './deps.ts';
import { textWidth } from './text-width.ts';

const BAR_WIDTH = 20;
const NARROWEST_BAR = 5;
/** The rate is that of the last seconds: answers from the store come all at once and would spoil it. */
const RATE_WINDOW_MS = 10_000;

/** Answers a second over a sliding window. Fed with what has been answered and when. */
export class RateWindow {
  #samples: { readonly elapsedMs: number; readonly answered: number }[] = [];

  add(elapsedMs: number, answered: number): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && (answered < last.answered || elapsedMs < last.elapsedMs)) this.#samples = [];
    this.#samples.push({ elapsedMs, answered });
    while (
      this.#samples.length > 2 &&
      (this.#samples[1]?.elapsedMs ?? elapsedMs) < elapsedMs - RATE_WINDOW_MS
    ) {
      this.#samples.shift();
    }
  }

  /** Null until there is something to tell. */
  get perSecond(): number | null {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.elapsedMs <= first.elapsedMs) return null;
    const rate = ((last.answered - first.answered) * 1000) / (last.elapsedMs - first.elapsedMs);
    return rate > 0 ? rate : null;
  }
}

/** Empty while nothing has been asked. Never wider than `columns - 1`, so that a terminal does not wrap it. */
export function renderProgress(progress: Progress, perSecond: number | null, columns: number): string {
  if (progress.total <= 0) return '';
  const answered = Math.min(progress.answered, progress.total);
  const count = `${wholeNumber(answered)}/${wholeNumber(progress.total)} calls`;
  const extras: string[] = [];
  if (perSecond !== null) extras.push(`${rateText(perSecond)}/s`);
  if (progress.cost !== null && progress.cost > 0) extras.push(formatCost(progress.cost));
  if (perSecond !== null && answered < progress.total) {
    extras.push(`ETA ${formatSeconds((progress.total - answered) / perSecond)}`);
  }
  if (progress.failed > 0) extras.push(`${wholeNumber(progress.failed)} failed`);
  if (progress.pass > 1) extras.push(`pass ${progress.pass}`);
  return fitLine(answered / progress.total, count, extras, columns);
}

export function renderDownload(
  id: string,
  doneBytes: number,
  totalBytes: number,
  columns: number,
  bytesPerSecond: number | null = null,
): string {
  const mebibytes = (bytes: number) => (bytes / 1_048_576).toFixed(1);
  const rate = bytesPerSecond === null ? [] : [`${mebibytes(bytesPerSecond)} MiB/s`];
  if (totalBytes <= 0)
    return fitLine(null, [`${id} ${mebibytes(doneBytes)} MiB`, ...rate].join('  '), [], columns);
  const share = Math.min(1, doneBytes / totalBytes);
  const count = `${id} ${mebibytes(doneBytes)}/${mebibytes(totalBytes)} MiB`;
  const left =
    bytesPerSecond === null ? [] : [`ETA ${formatSeconds((totalBytes - doneBytes) / bytesPerSecond)}`];
  return fitLine(share, count, [`${Math.floor(share * 100)}%`, ...rate, ...left], columns);
}

/** Gives up, in this order: bar width, extras from the last, the bar. */
function fitLine(share: number | null, count: string, extras: readonly string[], columns: number): string {
  const space = Math.max(1, columns - 1);
  for (let kept = extras.length; kept >= 0; kept -= 1) {
    const text = [count, ...extras.slice(0, kept)].join('  ');
    const room = space - textWidth(text) - 3;
    if (share !== null && room >= NARROWEST_BAR) return `${bar(share, Math.min(BAR_WIDTH, room))} ${text}`;
  }
  return textWidth(count) <= space ? count : count.slice(0, space);
}

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

export function bar(share: number, width: number): string {
  const eighths = Math.floor(Math.min(1, Math.max(0, share)) * width * 8);
  const filled = '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '');
  return `▕${filled.padEnd(width, ' ')}▏`;
}

export function wholeNumber(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function rateText(perSecond: number): string {
  return perSecond < 10 ? perSecond.toFixed(1) : wholeNumber(perSecond);
}

/** US dollars with as many digits as matter: `$0`, `$0.00012`, `$0.0523`, `$12.40`. */
export function formatCost(cost: number): string {
  if (cost === 0) return '$0';
  if (cost >= 1)
    return `$${cost.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const digits = cost < 0.01 ? 2 : 3;
  const decimals = Math.min(12, Math.max(2, digits - 1 - Math.floor(Math.log10(cost))));
  return `$${cost.toFixed(decimals).replace(/(\.\d\d\d*?)0+$/, '$1')}`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
