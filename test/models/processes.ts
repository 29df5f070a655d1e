// Processes of Python below the server, as the system lists them.
import { readdirSync, readFileSync } from 'node:fs';

/** Process ids of workers that `parent`, or a process of it, has started; of Linux only. */
export function workersOf(parent: number): readonly number[] {
  const parents = new Map<number, number>();
  const workers: number[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      // `pid (name) state parent ...`; a name may hold spaces and brackets. A zombie runs no more.
      const [state, ppid] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
      parents.set(pid, Number(ppid));
      if (state !== 'Z' && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('run_worker'))
        workers.push(pid);
    } catch {
      // Ended meanwhile.
    }
  }
  return workers.filter((pid) => {
    for (let at = parents.get(pid); at !== undefined && at > 1; at = parents.get(at))
      if (at === parent) return true;
    return false;
  });
}
