/** An offer into a notification with its buttons, and into the dialog behind "What is in it?". */
import { Notification } from '@jupyterlab/apputils';

import type { IOffer, Rescue } from './api';
import { contentsOf } from './contents';
import { ask } from './dialogs';
import { element } from './dom';
import { Errands, keepOpen } from './errands';
import { sentence, shortened, title } from './wording';

/** Shows offers and does what their buttons say. */
export class Toasts {
  constructor(
    private readonly _rescue: Rescue,
    private readonly _errands: Errands
  ) {}

  /** Show *offer*; return the notification's id. */
  show(offer: IOffer): string {
    const id: string = Notification.emit(shortened(offer.toast), 'warning', {
      autoClose: false,
      actions: this._actions(offer, () => Notification.dismiss(id))
    });
    return id;
  }

  private _actions(offer: IOffer, dismiss: () => void): Notification.IAction[] {
    const restore: Notification.IAction = {
      label: 'Restore',
      displayType: 'accent',
      callback: () => this._restore(offer)
    };
    const look = {
      label: 'What is in it?',
      callback: keepOpen(() => void this._explain(offer, 'Restore', dismiss))
    };
    const why = { label: 'Why?', callback: keepOpen(() => void this._explain(offer)) };
    const never = { label: 'Dismiss', callback: () => void this._dismiss(offer) };
    const reasons = offer.cause.advice.length > 0 ? [why] : [];
    return offer.snapshot ? [restore, look, never] : [...reasons, never];
  }

  private _restore({ path, kernel_id, snapshot }: IOffer): void {
    void this._errands.restore({ path, kernelId: kernel_id, snapshotId: snapshot!.id, device: snapshot!.device });
  }

  private async _explain(offer: IOffer, accept?: string, accepted: () => void = () => undefined): Promise<void> {
    if (await ask(title(offer.path), explanation(offer, await this._contents(offer)), accept)) {
      accepted();
      this._restore(offer);
    }
  }

  private async _contents({ path, snapshot }: IOffer): Promise<HTMLElement | null> {
    if (snapshot === null) {
      return null;
    }
    try {
      return contentsOf(await this._rescue.contents(path, snapshot.id));
    } catch (error) {
      return element('p', { className: 'jp-ipyrescue-error' }, sentence(error));
    }
  }

  private async _dismiss(offer: IOffer): Promise<void> {
    try {
      await this._rescue.dismiss(offer);
    } catch (error) {
      Notification.error(shortened(`Not dismissed: ${sentence(error)}`));
    }
  }
}

function explanation({ message, note, cause }: IOffer, contents: HTMLElement | null): HTMLElement {
  const advice = cause.advice.map(line => element('li', {}, line));
  return element(
    'div',
    {},
    element('p', { className: 'jp-ipyrescue-message' }, message),
    note === null || message.includes(note) ? null : element('p', {}, note),
    advice.length > 0 ? element('ul', { className: 'jp-ipyrescue-advice' }, ...advice) : null,
    contents
  );
}
