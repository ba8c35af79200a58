/** What can be done for the notebook in front, as commands. Knows neither the menu nor the palette. */
import { Notification } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';

import type { ISnapshot, Rescue } from './api';
import { showDeaths } from './deaths';
import { ask } from './dialogs';
import { element } from './dom';
import type { Errands } from './errands';
import type { Notebook, Notebooks } from './notebooks';
import { showSnapshots } from './snapshots';
import { count, formatAge, formatMoment, formatSize, sentence, shortened, title } from './wording';

interface IServices {
  rescue: Rescue;
  errands: Errands;
  notebooks: Notebooks;
}

/** The ids, in the order of the menu. */
export const COMMANDS = ['ipyrescue:checkpoint', 'ipyrescue:snapshots', 'ipyrescue:restore-newest', 'ipyrescue:why'];

/** Register the commands; they are enabled while a Python notebook is in front. */
export function addCommands(commands: CommandRegistry, { rescue, errands, notebooks }: IServices): void {
  const restore = ({ path, session }: Notebook, snapshotId: string) =>
    void errands.restore({ path, kernelId: session.session?.kernel?.id ?? null, snapshotId });
  const [checkpoint, snapshots, newest, why] = COMMANDS;
  const add = (id: string, label: string, act: (notebook: Notebook) => Promise<void>) =>
    commands.addCommand(id, {
      label,
      isEnabled: () => notebooks.current?.isPython ?? false,
      execute: async () => notebooks.current && (await act(notebooks.current))
    });

  add(checkpoint, 'Checkpoint now', ({ path }) => errands.checkpoint(path));
  add(snapshots, 'Snapshots of this notebook...', notebook =>
    showSnapshots(rescue, notebook.path, id => restore(notebook, id))
  );
  add(newest, 'Restore newest...', async notebook => {
    const id = await chooseNewest(rescue, notebook.path);
    if (id !== null) {
      restore(notebook, id);
    }
  });
  add(why, 'Why did it die?', ({ path }) => showDeaths(rescue, path));
}

/** Ask whether the newest snapshot that is whole is to be restored; return its id, if so. */
async function chooseNewest(rescue: Rescue, path: string): Promise<string | null> {
  try {
    const newest = (await rescue.snapshots(path)).find(({ mark }) => mark === '');
    if (newest === undefined) {
      Notification.info(`No snapshot of ${title(path)} to restore. In a cell: %checkpoint_vars every=5m`);
      return null;
    }
    return (await ask(`Restore ${title(path)}?`, summary(newest), 'Restore')) ? newest.id : null;
  } catch (error) {
    Notification.error(shortened(sentence(error)));
    return null;
  }
}

function summary({ created, label, size_bytes, variables }: ISnapshot): HTMLElement {
  const called = label ? `, "${label}"` : '';
  const when = `${formatMoment(created!)}, ${formatAge(created!)}`;
  return element(
    'div',
    {},
    element('p', {}, `Snapshot of ${when}${called}: ${count(variables!, 'variable')}, ${formatSize(size_bytes)}.`),
    element('p', {}, 'Variables of the same names are replaced.')
  );
}
