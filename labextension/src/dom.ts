/** Elements from plain data. A string becomes text, never markup: names and messages come from outside. */

type Properties<K extends keyof HTMLElementTagNameMap> = Partial<Omit<HTMLElementTagNameMap[K], 'style'>>;
type Child = Node | string | null;

/** Make an element; a child that is `null` is left out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties<K> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child): child is Node | string => child !== null));
  return node;
}

/** A table whose columns and rows say what they are to a screen reader, too. */
export function table(caption: string, columns: string[], rows: HTMLTableRowElement[]): HTMLTableElement {
  const heads = columns.map(column => element('th', { scope: 'col' }, column));
  return element(
    'table',
    { className: 'jp-ipyrescue-table' },
    element('caption', {}, caption),
    element('thead', {}, element('tr', {}, ...heads)),
    element('tbody', {}, ...rows)
  );
}

/** One row of a table; the first text names it. */
export function row(name: string, ...cells: Array<string | HTMLTableCellElement>): HTMLTableRowElement {
  const made = cells.map(cell => (typeof cell === 'string' ? element('td', {}, cell) : cell));
  return element('tr', {}, element('th', { scope: 'row' }, name), ...made);
}

/** A cell whose short text never breaks. */
export function short(text: string): HTMLTableCellElement {
  return element('td', { className: 'jp-ipyrescue-short' }, text);
}
