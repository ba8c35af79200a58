/** Dialogs around a text or a table. Knows how JupyterLab's dialog behaves, not what is shown in it. */
import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import { element } from './dom';

/** Show *body*; resolve to whether *accept*, the button that does something, was pressed. */
export async function ask(title: string, body: HTMLElement, accept?: string): Promise<boolean> {
  // What scrolls must be reachable without a mouse.
  body.tabIndex = 0;
  const close = Dialog.cancelButton({ label: 'Close' });
  const buttons = accept === undefined ? [close] : [close, Dialog.okButton({ label: accept })];
  return (await launch(new Dialog({ title, body: new Widget({ node: body }), buttons }))).button.accept;
}

/** Show a text as it is laid out, in a font of fixed width. */
export async function showText(title: string, text: string): Promise<void> {
  await ask(title, element('div', {}, element('pre', { className: 'jp-ipyrescue-report' }, text)));
}

/** Open *dialog* in our size, with buttons in its body that Enter presses. */
export async function launch<T>(dialog: Dialog<T>): Promise<Dialog.IResult<T>> {
  const guard = (event: KeyboardEvent) => leaveEnterToButtons(dialog, event);
  dialog.addClass('jp-ipyrescue-dialog');
  document.addEventListener('keydown', guard, true);
  try {
    return await dialog.launch();
  } finally {
    document.removeEventListener('keydown', guard, true);
  }
}

/** Older dialogs take Enter anywhere as their default button; the browser's own click must be what happens. */
function leaveEnterToButtons(dialog: Dialog<unknown>, event: KeyboardEvent): void {
  const body = dialog.node.querySelector('.jp-Dialog-body');
  const target = event.target as Element;
  if (event.key === 'Enter' && target instanceof HTMLButtonElement && body?.contains(target)) {
    event.stopPropagation();
  }
}
