/** What the buttons have a kernel do, told as it goes: pending, then the report, or why not. */
import { Notification } from '@jupyterlab/apputils';
import type { ServiceManager } from '@jupyterlab/services';
import type { ReadonlyJSONValue } from '@lumino/coreutils';
import { ISignal, Signal } from '@lumino/signaling';

import { showText } from './dialogs';
import { findKernel, runMagics } from './kernel';
import type { Notebooks } from './notebooks';
import { fitsToast, sentence, shortened, title } from './wording';

const REPORT_SHOWN_MILLISECONDS = 15000;
const SHOWN_MILLISECONDS = 1000;
const POLL_MILLISECONDS = 20;

interface IErrand {
  path: string;
  kernelId: string | null;
  line: string;
  /** What is said while it runs, when it waits for a busy kernel, and before the sentence of an error. */
  pending: string;
  waiting: string;
  failed: string;
  /** Whether a notebook that has lost its kernel gets a new one. */
  startsKernel: boolean;
}

/** A snapshot that is to be restored, into the kernel of the notebook at *path*. */
export interface IRestore {
  path: string;
  kernelId: string | null;
  snapshotId: string;
  device?: 'cpu' | null;
}

/** Runs the magics for the buttons, and shows what came of it. */
export class Errands {
  constructor(
    private readonly _services: ServiceManager.IManager,
    private readonly _notebooks: Notebooks
  ) {}

  /** Emits the path of the notebook for which something was done, or tried. */
  get ended(): ISignal<this, string> {
    return this._ended;
  }

  restore({ path, kernelId, snapshotId, device }: IRestore): Promise<void> {
    return this._run({
      path,
      kernelId,
      line: `%restore_vars from=${snapshotId}${device ? ` device=${device}` : ''}`,
      pending: `Restoring the variables of ${title(path)} ...`,
      waiting: 'The kernel is busy: the restore runs when its cell has ended.',
      failed: 'Not restored',
      startsKernel: true
    });
  }

  checkpoint(path: string): Promise<void> {
    return this._run({
      path,
      kernelId: null,
      line: '%checkpoint_vars',
      pending: `Saving the variables of ${title(path)} ...`,
      waiting: 'The kernel is busy: the snapshot is made when its cell has ended.',
      failed: 'Not saved',
      startsKernel: false
    });
  }

  private async _run(errand: IErrand): Promise<void> {
    const id = Notification.emit(errand.pending, 'in-progress', { autoClose: false });
    await shown(id);
    try {
      succeed(id, errand, await this._report(errand, id));
    } catch (error) {
      fail(id, errand, sentence(error), () => void this._run(errand));
    }
    this._ended.emit(errand.path);
  }

  private async _report(errand: IErrand, id: string): Promise<string> {
    const kernel = await this._kernel(errand);
    if (kernel.execution_state === 'busy') {
      tell(id, errand.waiting, 'in-progress', { autoClose: false });
    }
    return runMagics(this._services.kernels, kernel, `%load_ext ipyrescue\n${errand.line}`);
  }

  private async _kernel({ path, kernelId, startsKernel }: IErrand) {
    const notebook = this._notebooks.find(path);
    let kernel = await findKernel(this._services, path, kernelId);
    if (kernel === null && startsKernel && notebook !== undefined) {
      await notebook.startKernel();
      kernel = await findKernel(this._services, path, null);
    }
    if (kernel === null) {
      throw new Error(`${title(path)} has no kernel. Open it, start one (menu Kernel), and try again.`);
    }
    return kernel;
  }

  private readonly _ended = new Signal<this, string>(this);
}

function succeed(id: string, { path }: IErrand, report: string): void {
  const [first] = report.trim().split('\n', 1);
  const show = { label: 'Show report', callback: () => void showText(title(path), report) };
  tell(id, shortened(first || 'Done.'), 'success', {
    autoClose: REPORT_SHOWN_MILLISECONDS,
    actions: report ? [show] : []
  });
}

function fail(id: string, { failed }: IErrand, reason: string, again: () => void): void {
  const message = `${failed}: ${reason}`;
  const retry = { label: 'Try again', callback: again };
  const whole = { label: 'Read all', callback: keepOpen(() => void showText(failed, reason)) };
  tell(id, shortened(message), 'error', {
    autoClose: false,
    actions: fitsToast(message) ? [retry] : [whole, retry]
  });
}

/** Wait until JupyterLab shows a notification: it loses a change that comes before. Hidden ones are not waited for. */
async function shown(id: string): Promise<void> {
  for (let waited = 0; waited < SHOWN_MILLISECONDS && !document.getElementById(id); waited += POLL_MILLISECONDS) {
    await new Promise(resolve => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

/** Change a notification, or make it anew if somebody has closed it meanwhile. */
function tell(
  id: string,
  message: string,
  type: Notification.TypeOptions,
  options: Notification.IOptions<ReadonlyJSONValue>
): void {
  if (!Notification.update({ id, message, type, ...options })) {
    Notification.emit(message, type, options);
  }
}

/** An action after which its notification stays. */
export function keepOpen(action: () => void): (event: MouseEvent) => void {
  return event => {
    event.preventDefault();
    action();
  };
}
