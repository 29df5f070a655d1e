// Names that somebody may have meant, for messages about names that do not exist.

/** Longer than any name: comparing would cost time that whoever asks does not pay for. */
const LONGEST_ASKED = 100;

/** Names close to the asked one, the closest first: few edits apart, or one inside the other. */
export function closeNames(asked: string, names: Iterable<string>, limit = 3): readonly string[] {
  if (asked.length > LONGEST_ASKED) return [];
  const wanted = asked.toLowerCase();
  const allowed = Math.max(2, Math.floor(wanted.length / 3));
  const ranked: { name: string; distance: number }[] = [];
  for (const name of names) {
    const candidate = name.toLowerCase();
    const isInside = wanted.length >= 3 && (candidate.includes(wanted) || wanted.includes(candidate));
    // As many edits are needed as the lengths differ by, at least.
    if (!isInside && Math.abs(wanted.length - candidate.length) > allowed) continue;
    const distance = editDistance(wanted, candidate);
    if (distance <= allowed || isInside) ranked.push({ name, distance });
  }
  ranked.sort((left, right) => left.distance - right.distance || (left.name < right.name ? -1 : 1));
  return ranked.slice(0, limit).map(({ name }) => name);
}

/** Levenshtein distance. */
export function editDistance(left: string, right: string): number {
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const replaced = (previous[column - 1] ?? 0) + (left[row - 1] === right[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[right.length] ?? 0;
}

/** `'a', 'b' or 'c'` */
export function quoteList(names: readonly string[], word: 'or' | 'and' = 'or'): string {
  const quoted = names.map((name) => `'${name}'`);
  return quoted.length < 2 ? quoted.join('') : `${quoted.slice(0, -1).join(', ')} ${word} ${quoted.at(-1)}`;
}
