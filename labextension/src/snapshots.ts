/** The snapshots of a notebook: a table with what can be done to each, and below it what one of them holds. */
import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import type { ISnapshot, Rescue } from './api';
import { contentsOf, differenceOf } from './contents';
import { launch } from './dialogs';
import { element, short, table } from './dom';
import { count, formatAge, formatMoment, formatSize, sentence, title } from './wording';

const COLUMNS = ['When', 'Trigger', 'Label', 'Size', 'Variables', 'Mark', 'Actions'];
const MARKS = {
  interrupted: 'made in the middle of a step: what it holds may not fit together',
  damaged: 'what is on disk is not what was written',
  foreign: 'signed by another key than yours'
};
const NONE = 'No snapshot of this notebook yet. In a cell: %checkpoint_vars every=5m';

/** Show the snapshots of the notebook at *path*; *restore* is called with the id of the one that is chosen. */
export async function showSnapshots(rescue: Rescue, path: string, restore: (id: string) => void): Promise<void> {
  const body = new Snapshots(rescue, path, id => {
    dialog.reject();
    restore(id);
  });
  const buttons = [Dialog.cancelButton({ label: 'Close' })];
  const dialog = new Dialog({ title: `Snapshots of ${title(path)}`, body, buttons });
  void body.load();
  await launch(dialog);
}

/** The table with its state: whose variables are shown, which one waits for another to be compared with. */
class Snapshots extends Widget {
  private readonly _told = element('p', { className: 'jp-ipyrescue-told', role: 'status' }, 'Loading ...');
  private readonly _list = region('jp-ipyrescue-list', 'Snapshots');
  private readonly _detail = region('jp-ipyrescue-detail', 'Contents');
  private _snapshots: ISnapshot[] = [];
  private _open: string | null = null;
  private _compared: string | null = null;
  private _forgetting: string | null = null;

  constructor(
    private readonly _rescue: Rescue,
    private readonly _path: string,
    private readonly _restore: (id: string) => void
  ) {
    super();
    this.addClass('jp-ipyrescue-snapshots');
    this.node.append(this._told, this._list, this._detail);
  }

  /** Ask for the snapshots, after *change* if one is to be made first, and show them. */
  async load(change: () => Promise<void> = async () => undefined): Promise<void> {
    this._forgetting = null;
    await this._try(async () => {
      await change();
      this._snapshots = await this._rescue.snapshots(this._path);
      this._say();
    });
    this._render();
  }

  /** Do what asks the server; the sentence of a failure stands above the table. */
  private async _try(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this._detail.replaceChildren();
      this._say(sentence(error));
      this._told.classList.add('jp-ipyrescue-error');
    }
  }

  /** Say *text*, or how many snapshots there are. */
  private _say(text?: string): void {
    const snapshots = this._snapshots.length;
    this._told.classList.remove('jp-ipyrescue-error');
    this._told.textContent = text ?? (snapshots > 0 ? `${count(snapshots, 'snapshot')}, newest first` : NONE);
  }

  /** Lay the table anew; the button that had the focus has it again. */
  private _render(): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    const rows = this._snapshots.map(snapshot => this._row(snapshot));
    this._list.replaceChildren(table('Snapshots', COLUMNS, rows));
    this._list.querySelector<HTMLElement>(`[data-key="${focused}"]`)?.focus();
  }

  private _row(snapshot: ISnapshot): HTMLTableRowElement {
    const { id, trigger, cell, label, size_bytes, variables } = snapshot;
    const node = element(
      'tr',
      { className: id === this._open ? 'jp-mod-selected' : '' },
      element('th', { scope: 'row' }, ...this._when(snapshot)),
      element('td', {}, [trigger, cell === null ? null : `[${cell}]`].filter(part => part !== null).join(' ')),
      element('td', {}, label ?? ''),
      short(formatSize(size_bytes)),
      short(variables === null ? '' : String(variables)),
      element('td', {}, ...marksOf(snapshot)),
      element('td', { className: 'jp-ipyrescue-actions' }, ...this._actions(snapshot))
    );
    node.onclick = event => {
      if (isReadable(snapshot) && !(event.target instanceof HTMLButtonElement)) {
        void this._show(id);
      }
    };
    return node;
  }

  private _when({ id, created }: ISnapshot): Node[] {
    if (created === null) {
      return [element('code', {}, id.slice(0, 8))];
    }
    const look = button(`look-${id}`, formatMoment(created), () => this._show(id));
    look.className = 'jp-ipyrescue-look';
    look.ariaExpanded = String(id === this._open);
    return [look, element('div', { className: 'jp-ipyrescue-age' }, formatAge(created))];
  }

  private _actions(snapshot: ISnapshot): Node[] {
    const { id, pinned } = snapshot;
    const compare = this._compared === null ? 'Compare' : this._compared === id ? 'Cancel' : 'With this';
    const actions = [
      button(`restore-${id}`, 'Restore', () => this._restore(id)),
      button(`compare-${id}`, compare, () => this._compare(id)),
      button(`pin-${id}`, pinned ? 'Unpin' : 'Pin', () => this._pin(id, !pinned))
    ];
    return [...(isReadable(snapshot) ? actions : []), this._forgetButton(id)];
  }

  private _forgetButton(id: string): HTMLButtonElement {
    const asked = id === this._forgetting;
    const node = button(`forget-${id}`, asked ? 'Really forget?' : 'Forget', () => this._forget(id));
    node.classList.add('jp-ipyrescue-forget');
    node.classList.toggle('jp-mod-warn', asked);
    return node;
  }

  private async _show(id: string): Promise<void> {
    this._open = this._open === id ? null : id;
    this._forgetting = null;
    await this._try(async () => {
      this._detail.replaceChildren(...(this._open ? [contentsOf(await this._rescue.contents(this._path, id))] : []));
      this._say();
    });
    this._render();
  }

  private async _pin(id: string, pinned: boolean): Promise<void> {
    await this.load(() => this._rescue.pin(this._path, id, pinned));
  }

  /** Ask at the first press, forget at the second. */
  private async _forget(id: string): Promise<void> {
    if (this._forgetting !== id) {
      this._forgetting = id;
      this._render();
      return;
    }
    await this.load(() => this._rescue.forget(this._path, id));
  }

  /** Remember the first that is chosen, compare at the second; the same one again takes it back. */
  private async _compare(id: string): Promise<void> {
    const other = this._compared;
    this._forgetting = null;
    this._compared = other === null ? id : null;
    this._say(other === null ? 'Choose the snapshot to compare it with.' : undefined);
    if (other !== null && other !== id) {
      this._open = null;
      await this._try(async () => {
        this._detail.replaceChildren(differenceOf(await this._rescue.difference(this._path, other, id)));
      });
    }
    this._render();
  }
}

/** A part that scrolls by itself, and is reached without a mouse. */
function region(className: string, name: string): HTMLElement {
  return element('div', { className, role: 'region', ariaLabel: name, tabIndex: 0 });
}

function isReadable({ mark }: ISnapshot): boolean {
  return mark === '' || mark === 'interrupted';
}

function marksOf({ pinned, mark }: ISnapshot): Node[] {
  const badges = pinned ? [badge('pinned', 'kept whatever is forgotten by itself')] : [];
  return mark === '' ? badges : [...badges, badge(mark, MARKS[mark])];
}

function badge(text: string, explanation: string): HTMLElement {
  return element('span', { className: `jp-ipyrescue-badge jp-ipyrescue-${text}`, title: explanation }, text);
}

function button(key: string, label: string, press: () => unknown): HTMLButtonElement {
  const node = element('button', { type: 'button', className: 'jp-ipyrescue-button', onclick: press }, label);
  node.dataset.key = key;
  return node;
}
