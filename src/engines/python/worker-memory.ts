// Watches the resident memory of a process, as the system counts it in /proc. Elsewhere than on Linux nothing can be
// seen. An address space limit would be exact, but numeric libraries reserve many times what they use.
import { readFile } from 'node:fs/promises';

const WATCH_EVERY_MS = 200;

/** Calls `onExceeded` once, with what was seen, when the process has more than `limitMb`. The function it gives ends the watch. */
export function watchMemory(pid: number, limitMb: number, onExceeded: (seenMb: number) => void): () => void {
  let isLooking = false;
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    void residentMb(pid).then((seenMb) => {
      isLooking = false;
      if (seenMb === undefined || seenMb <= limitMb) return;
      clearInterval(timer);
      onExceeded(seenMb);
    });
  }, WATCH_EVERY_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** Undefined where the process is gone, or where there is no /proc. */
async function residentMb(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const [, kilobytes] = /^VmRSS:\s*(\d+) kB$/m.exec(status) ?? [];
  return kilobytes === undefined ? undefined : Number(kilobytes) / 1024;
}
