/** Which offers are shown: those the server pushes, and those it keeps for whoever asks later. */
import { Notification } from '@jupyterlab/apputils';
import type { Kernel } from '@jupyterlab/services';

import type { IOffer, Rescue } from './api';
import type { Notebook } from './notebooks';
import type { Toasts } from './toast';

/** The events whose data are offers. */
export const SCHEMA_ID = 'https://schema.ipyrescue.invalid/kernel_rescue/v1';

/** What a kernel is before it runs; one that was restarted by the server may stay at `starting` until it is used. */
const COMING: Kernel.Status[] = ['unknown', 'restarting', 'autorestarting'];
const RUNNING: Kernel.Status[] = ['starting', 'idle', 'busy'];

/** Shows each offer once in the life of this page, and takes it back when the server no longer makes it. */
export class Offers {
  /** The notification of each offer that this page has shown. */
  private readonly _shown = new Map<string, { path: string; notification: string }>();

  constructor(
    private readonly _rescue: Rescue,
    private readonly _toasts: Toasts
  ) {}

  /** Ask for the offers of all notebooks with a session, and whether those that stand here still do. */
  async refresh(): Promise<void> {
    const offers = await quietly(this._rescue.offers());
    if (offers !== null) {
      const paths = offers.map(({ path }) => path);
      this._settle(offers, paths);
      await Promise.all(this._standing().filter(path => !paths.includes(path)).map(path => this.refreshFor(path)));
    }
  }

  /** Ask for the offers of one notebook. */
  async refreshFor(path: string): Promise<void> {
    const offers = await quietly(this._rescue.offers(path));
    if (offers !== null) {
      this._settle(offers, [path]);
    }
  }

  /** Ask when *notebook* has its first kernel, and after each change, restart or death of it. */
  watch(notebook: Notebook): void {
    const { session } = notebook;
    const refresh = () => {
      if (notebook.isPython) {
        void this.refreshFor(notebook.path);
      }
    };
    let isComing = false;
    session.statusChanged.connect((_, status) => {
      const isRunning = RUNNING.includes(status);
      if (status === 'dead' || (isRunning && isComing)) {
        refresh();
      }
      isComing = COMING.includes(status) || (isComing && !isRunning);
    });
    session.kernelChanged.connect(refresh);
    void session.ready.then(refresh);
  }

  /** Show what the server pushes. */
  receive(offer: IOffer): void {
    this._settle([offer], [offer.path]);
  }

  /** The paths of the notifications that nobody has closed yet. */
  private _standing(): string[] {
    const standing = [...this._shown.values()].filter(({ notification }) => Notification.manager.has(notification));
    return [...new Set(standing.map(({ path }) => path))];
  }

  /** Show which of *offers* are new; take back what stands there for one of *paths* and is not among them. */
  private _settle(offers: IOffer[], paths: string[]): void {
    const made = new Set(offers.map(({ id }) => id));
    this._shown.forEach(({ path, notification }, id) => {
      if (paths.includes(path) && !made.has(id)) {
        Notification.dismiss(notification);
      }
    });
    for (const offer of offers.filter(({ id }) => !this._shown.has(id))) {
      this._shown.set(offer.id, { path: offer.path, notification: this._toasts.show(offer) });
    }
  }
}

/** An offer that cannot be asked for is asked for again when the page is looked at; nobody waits for it. */
async function quietly<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    console.debug('ipyrescue: no offers:', error);
    return null;
  }
}
