/** The extension: what is joined with what. */
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IStatusBar } from '@jupyterlab/statusbar';

import { IOffer, Rescue } from './api';
import { addCommands, COMMANDS } from './commands';
import { Errands } from './errands';
import { openFreshMenu } from './menu';
import { Notebooks } from './notebooks';
import { Offers, SCHEMA_ID } from './offers';
import { Protection } from './protection';
import { addToStatusBar, addToToolbars } from './status';
import { Toasts } from './toast';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ipyrescue:plugin',
  description: 'Says which kernel died and why, and restores its variables with one click.',
  autoStart: true,
  optional: [ICommandPalette, IStatusBar],
  activate: (app: JupyterFrontEnd, palette: ICommandPalette | null, statusBar: IStatusBar | null) => {
    const notebooks = new Notebooks(app);
    const rescue = new Rescue(app.serviceManager.serverSettings);
    app.docRegistry.addWidgetExtension('Notebook', notebooks);
    void app.restored.then(async () => {
      if (await rescue.isThere()) {
        begin(app, rescue, notebooks, palette, statusBar);
      } else {
        console.debug('ipyrescue: the server extension is not enabled, so there is nothing to show.');
      }
    });
  }
};

function begin(
  app: JupyterFrontEnd,
  rescue: Rescue,
  notebooks: Notebooks,
  palette: ICommandPalette | null,
  statusBar: IStatusBar | null
): void {
  const errands = new Errands(app.serviceManager, notebooks);
  const offers = new Offers(rescue, new Toasts(rescue, errands));
  const protection = new Protection(rescue, notebooks);

  addCommands(app.commands, { rescue, errands, notebooks });
  COMMANDS.forEach(command => palette?.addItem({ command, category: 'ipyrescue' }));
  const open = (button: HTMLElement) => void openFreshMenu(button, app.commands, protection);
  if (statusBar) {
    addToStatusBar(statusBar, protection, open);
  } else {
    addToToolbars(notebooks, protection, open);
  }

  notebooks.each(notebook => {
    offers.watch(notebook);
    protection.watch(notebook);
  });
  app.shell.currentChanged?.connect(() => void protection.refresh());
  app.serviceManager.events.stream.connect((_, event) => {
    if (event.schema_id === SCHEMA_ID) {
      offers.receive(event as unknown as IOffer);
      void protection.refresh();
    }
  });
  errands.ended.connect((_, path) => {
    void offers.refreshFor(path);
    void protection.refresh();
  });
  whenLookedAt(() => void offers.refresh());
  void offers.refresh();
}

/** Call *act* whenever the user comes back to this page: another tab may have answered meanwhile. */
function whenLookedAt(act: () => void): void {
  window.addEventListener('focus', act);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') {
      act();
    }
  });
}

export default plugin;
