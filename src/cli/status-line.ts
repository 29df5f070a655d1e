// The one line at the bottom of a terminal that is drawn over itself; silent where standard error is not one.
// Lines meant to stay go through `say`, so that they never land in the middle of it.
import type { Io, Progress } from './deps.ts';
import { RateWindow, renderDownload, renderProgress } from './progress.ts';

const REDRAW_MS = 100;
const CLEAR_LINE = '\r\u001b[2K';

export class StatusLine {
  readonly #io: Io;
  #shown = '';
  #rate = new RateWindow();
  #drawnAtMs = Number.NEGATIVE_INFINITY;
  #drawnPercent = -1;

  constructor(io: Io) {
    this.#io = io;
  }

  say(line: string): void {
    if (this.#shown === '') {
      this.#io.stderr.write(`${line}\n`);
      return;
    }
    this.#io.stderr.write(`${CLEAR_LINE}${line}\n${this.#shown}`);
  }

  clear(): void {
    if (this.#shown !== '') this.#io.stderr.write(CLEAR_LINE);
    this.#shown = '';
    this.#rate = new RateWindow();
    this.#drawnAtMs = Number.NEGATIVE_INFINITY;
    this.#drawnPercent = -1;
  }

  progress(progress: Progress): void {
    if (!this.#io.isStderrTty) return;
    if (progress.isFinal) {
      this.clear();
      return;
    }
    const sinceDrawn = progress.elapsedMs - this.#drawnAtMs;
    if (sinceDrawn >= 0 && sinceDrawn < REDRAW_MS) return;
    this.#drawnAtMs = progress.elapsedMs;
    this.#rate.add(progress.elapsedMs, progress.answered);
    this.#draw(renderProgress(progress, this.#rate.perSecond, this.#io.columns));
  }

  /** With `elapsedMs` (since when does not matter) the line tells how fast it goes and how long it will take. */
  download(id: string, doneBytes: number, totalBytes: number, elapsedMs?: number): void {
    if (!this.#io.isStderrTty) return;
    if (totalBytes > 0 && doneBytes >= totalBytes) {
      this.clear();
      return;
    }
    // Once a percent, or once a mebibyte where the size is not known.
    const step = Math.floor(totalBytes > 0 ? (doneBytes * 100) / totalBytes : doneBytes / 1_048_576);
    const isDue = elapsedMs !== undefined && elapsedMs - this.#drawnAtMs >= REDRAW_MS;
    if (step === this.#drawnPercent && !isDue) return;
    this.#drawnPercent = step;
    if (elapsedMs !== undefined) {
      this.#drawnAtMs = elapsedMs;
      this.#rate.add(elapsedMs, doneBytes);
    }
    this.#draw(renderDownload(id, doneBytes, totalBytes, this.#io.columns, this.#rate.perSecond));
  }

  #draw(line: string): void {
    if (line === this.#shown) return;
    this.#io.stderr.write(`${CLEAR_LINE}${line}`);
    this.#shown = line;
  }
}
