// How wide a text is on a terminal, and how to cut or pad it by columns instead of code units.
import stringWidth from 'string-width';

const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;
const GRAPHEMES = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Format characters that have a glyph. string-width 8.1 throws where one of them stands alone. */
const FORMAT_WITH_GLYPH =
  /[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9-\ufffb\u{110bd}\u{110cd}\u{13430}-\u{1343f}]/gu;

/** Columns of a text without escape sequences. */
export function textWidth(text: string): number {
  if (PRINTABLE_ASCII.test(text)) return text.length;
  return stringWidth(text.replace(FORMAT_WITH_GLYPH, '?'), { countAnsiEscapeCodes: true });
}

/** At most `width` columns; what is cut off is shown as an ellipsis. Never cuts through a character. */
export function cutToWidth(text: string, width: number): string {
  if (PRINTABLE_ASCII.test(text)) {
    return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}${width > 0 ? '…' : ''}`;
  }
  if (textWidth(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const { segment } of GRAPHEMES.segment(text)) {
    const segmentWidth = textWidth(segment);
    if (used + segmentWidth > width - 1) break;
    kept += segment;
    used += segmentWidth;
  }
  return width > 0 ? `${kept}…` : '';
}

export function padToWidth(text: string, width: number, isRight: boolean): string {
  const space = ' '.repeat(Math.max(0, width - textWidth(text)));
  return isRight ? space + text : text + space;
}
