// What a benchmark says: figures beside a peer or limit of the same run, and promises that held or did not.
// Prints them as Markdown or JSON. Judges no time: only a broken promise makes a run fail.
import { availableParallelism, loadavg } from 'node:os';

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What the value is compared with, measured or computed in the same run and in the same unit. */
  readonly against?: { readonly name: string; readonly value: number };
}

/** Something that must hold whatever the machine. */
export interface Promised {
  readonly claim: string;
  readonly holds: boolean;
  readonly found: string;
}

export interface Report {
  readonly figures: readonly Figure[];
  readonly promises: readonly Promised[];
  readonly notes: readonly string[];
  /** Peak resident memory of each process that ran duckserve, in MB. */
  readonly peakRssMb: Readonly<Record<string, number>>;
  /** Set instead of figures when the scenario cannot run here. */
  readonly skipped?: string;
}

export interface Measured extends Report {
  readonly scenario: string;
  readonly scale: number;
  readonly cores: number;
  readonly node: string;
  /** One-minute load average before and after. */
  readonly load: readonly [before: number, after: number];
}

export const skipped = (reason: string): Report => ({
  figures: [],
  promises: [],
  notes: [],
  peakRssMb: {},
  skipped: reason,
});

export const promise = (claim: string, holds: boolean, found: string | number): Promised => ({
  claim,
  holds,
  found: String(found),
});

export const oneMinuteLoad = (): number => loadavg()[0] ?? 0;

export function toMeasured(scenario: string, scale: number, loadBefore: number, report: Report): Measured {
  return {
    scenario,
    scale,
    cores: availableParallelism(),
    node: process.version,
    load: [loadBefore, oneMinuteLoad()],
    ...report,
  };
}

export function toMarkdown(measured: Measured): string {
  const { scenario, scale, cores, node, load } = measured;
  const lines = [`### ${scenario}`, ''];
  lines.push(
    `Scale ${scale}, ${cores} cores, Node ${node}, load average ${load.map((value) => value.toFixed(1)).join(' before and ')} after.`,
    '',
  );
  if (measured.skipped !== undefined) return [...lines, `Skipped: ${measured.skipped}`, ''].join('\n');
  lines.push('| figure | value | peer or limit of the same run | value / peer |', '|---|---:|---|---:|');
  for (const figure of measured.figures) {
    const { against } = figure;
    const peer = against ? `${against.name}: ${withUnit(against.value, figure.unit)}` : '';
    const ratio = against ? toText(figure.value / against.value) : '';
    lines.push(`| ${figure.name} | ${withUnit(figure.value, figure.unit)} | ${peer} | ${ratio} |`);
  }
  for (const [process, mb] of Object.entries(measured.peakRssMb)) {
    lines.push(`| peak memory, ${process} | ${Math.round(mb)} MB | | |`);
  }
  lines.push('');
  for (const { claim, holds, found } of measured.promises) {
    lines.push(`- ${holds ? 'kept' : '**BROKEN**'}: ${claim} (${found})`);
  }
  for (const note of measured.notes) lines.push(`- note: ${note}`);
  return [...lines, ''].join('\n');
}

const withUnit = (value: number, unit: string): string => `${toText(value)} ${unit}`.trim();

function toText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) || Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return value.toPrecision(3);
}
