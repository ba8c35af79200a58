/** The protection into a button: in the status bar, or in a notebook's toolbar where there is none. */
import type { IStatusBar } from '@jupyterlab/statusbar';
import { Widget } from '@lumino/widgets';

import type { IProtection } from './api';
import { element } from './dom';
import type { Notebooks } from './notebooks';
import type { Protection } from './protection';

const ITEM_NAME = 'ipyrescue-status';

/** Opens what belongs to the button, above or below it. */
export type OpenMenu = (button: HTMLElement) => void;

/** A button that says how well a notebook is protected. */
class StatusItem extends Widget {
  private readonly _button: HTMLButtonElement;

  constructor(open: OpenMenu) {
    super();
    this._button = element('button', { type: 'button', className: 'jp-ipyrescue-status' });
    this._button.setAttribute('aria-haspopup', 'menu');
    this._button.onclick = () => open(this._button);
    this.node.append(this._button);
  }

  tell({ state, label, text }: IProtection): void {
    this._button.dataset.state = state;
    this._button.textContent = label;
    this._button.title = text;
    this._button.ariaLabel = `ipyrescue: ${text}`;
  }
}

/** Put the button into the status bar, where it shows while a Python notebook is in front. */
export function addToStatusBar(statusBar: IStatusBar, protection: Protection, open: OpenMenu): void {
  const item = new StatusItem(open);
  protection.changed.connect(() => protection.status && item.tell(protection.status.protection));
  statusBar.registerStatusItem('ipyrescue:status', {
    item,
    align: 'left',
    rank: 3,
    isActive: () => protection.status !== null,
    activeStateChanged: protection.changed
  });
}

/** Put a button at the end of every notebook's toolbar. */
export function addToToolbars(notebooks: Notebooks, protection: Protection, open: OpenMenu): void {
  notebooks.each(notebook => {
    const item = new StatusItem(open);
    const show = () => {
      if (notebook === notebooks.current) {
        item.setHidden(protection.status === null);
        protection.status && item.tell(protection.status.protection);
      }
    };
    item.hide();
    protection.changed.connect(show);
    notebook.panel.disposed.connect(() => protection.changed.disconnect(show));
    notebook.panel.toolbar.addItem(ITEM_NAME, item);
  });
}
