/** How well the notebook in front is protected, kept fresh. Knows the server's answer, not how it is shown. */
import { Poll, Throttler } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import type { IStatus, Rescue } from './api';
import type { Notebook, Notebooks } from './notebooks';
import { sentence } from './wording';

const POLL_MILLISECONDS = 30_000;
const AFTER_CELL_MILLISECONDS = 2_000;

/** Asks for the status of the notebook in front: slowly, when its kernel turns idle, and when told to. */
export class Protection {
  private readonly _changed = new Signal<this, void>(this);
  private readonly _poll: Poll;
  private readonly _afterCell: Throttler;
  private _status: IStatus | null = null;

  constructor(
    private readonly _rescue: Rescue,
    private readonly _notebooks: Notebooks
  ) {
    this._poll = new Poll({
      name: 'ipyrescue:status',
      factory: () => this._load(),
      frequency: { interval: POLL_MILLISECONDS, backoff: true, max: 10 * POLL_MILLISECONDS },
      standby: 'when-hidden'
    });
    this._afterCell = new Throttler(() => this.refresh(), { limit: AFTER_CELL_MILLISECONDS, edge: 'trailing' });
  }

  /** The last answer; `null` while no Python notebook is in front. */
  get status(): IStatus | null {
    return this._status;
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Ask now, and wait for the answer. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick;
  }

  /** Ask again after the cells of *notebook*, while it is in front. */
  watch(notebook: Notebook): void {
    notebook.session.statusChanged.connect((_, status) => {
      if (status === 'idle' && notebook === this._notebooks.current) {
        void this._afterCell.invoke();
      }
    });
    notebook.session.kernelChanged.connect(() => void this.refresh());
    void notebook.session.ready.then(() => this.refresh());
  }

  private async _load(): Promise<void> {
    const notebook = this._notebooks.current;
    const status = notebook?.isPython ? await this._ask(notebook.path) : null;
    if (notebook === this._notebooks.current) {
      this._status = status;
      this._changed.emit();
    }
  }

  /** A status that cannot be had is shown as unknown, with the reason, and never as the last good one. */
  private async _ask(path: string): Promise<IStatus> {
    try {
      return await this._rescue.status(path);
    } catch (error) {
      const protection = { state: 'unknown', label: 'protection unknown', text: sentence(error) } as const;
      return { path, kernel_id: null, protection, memory: null };
    }
  }
}
