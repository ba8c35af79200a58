/** What a snapshot holds, and how two of them differ, into elements. Pure: asks nobody. */
import type { IContents, IDifference } from './api';
import { element, row, short, table } from './dom';
import { count, formatSize } from './wording';

/** The variables of a snapshot, and what was left out of it and why. */
export function contentsOf({ variables, skipped }: IContents): HTMLElement {
  const rows = variables.map(({ name, type, size_bytes, cell }) =>
    row(name, type, short(formatSize(size_bytes)), short(cell === null ? '' : `[${cell}]`))
  );
  return element(
    'div',
    {},
    table(count(variables.length, 'variable'), ['Name', 'Type', 'Size', 'Cell'], rows),
    skipped.length === 0 ? null : table(`${skipped.length} not saved`, ['Name', 'Type', 'Why'], skipped.map(skippedRow))
  );
}

/** What the newer of two snapshots has more, less and otherwise than the older. */
export function differenceOf({ added, removed, changed, same }: IDifference): HTMLElement {
  const rows = [
    ...added.map(({ name, type, size_bytes }) => row(name, 'added', type, '', short(formatSize(size_bytes)))),
    ...removed.map(({ name, type, size_bytes }) => row(name, 'removed', type, short(formatSize(size_bytes)), '')),
    ...changed.map(({ name, type, size_bytes, size_bytes_before }) =>
      row(name, 'changed', type, short(formatSize(size_bytes_before)), short(formatSize(size_bytes)))
    )
  ];
  const told = `${added.length} added, ${removed.length} removed, ${changed.length} changed, ${same} the same`;
  return table(told, ['Name', 'Difference', 'Type', 'Size before', 'Size after'], rows);
}

function skippedRow({ name, type, reason }: { name: string; type: string; reason: string }): HTMLTableRowElement {
  return row(name, type, reason);
}
