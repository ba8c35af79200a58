/** The notebooks that are open in this page and the one in front. Knows no endpoint and no cell. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext, Toolbar } from '@jupyterlab/apputils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';

type Panel = Widget & { toolbar: Toolbar };

/** One open notebook with its session. */
export class Notebook {
  constructor(
    readonly panel: Panel,
    private readonly _context: DocumentRegistry.Context,
    private readonly _app: JupyterFrontEnd
  ) {}

  /** Where it is, as the server's contents know it; without the drive that collaboration puts in front. */
  get path(): string {
    return this._app.serviceManager.contents.localPath(this._context.path);
  }

  get session(): ISessionContext {
    return this._context.sessionContext;
  }

  /** Whether its kernel can load ipyrescue: one of which no language is known might, but not while it is loading. */
  get isPython(): boolean {
    const kernel = this.session.session?.kernel?.name ?? this.session.kernelPreference.name ?? '';
    const spec = this._app.serviceManager.kernelspecs.specs?.kernelspecs[kernel];
    const language = spec?.language ?? this._context.model.defaultKernelLanguage;
    return language === '' ? this.session.isReady : language.toLowerCase() === 'python';
  }

  /** Give it a kernel again, of the sort it had. */
  async startKernel(): Promise<void> {
    const name = this.session.prevKernelName || this.session.kernelPreference.name;
    await this.session.changeKernel(name ? { name } : undefined);
  }
}

/** Sees each notebook as it opens, through the document registry. */
export class Notebooks implements DocumentRegistry.WidgetExtension {
  readonly opened = new Signal<this, Notebook>(this);
  private readonly _all = new Set<Notebook>();

  constructor(private readonly _app: JupyterFrontEnd) {}

  createNew(panel: Panel, context: DocumentRegistry.Context): IDisposable | void {
    const notebook = new Notebook(panel, context, this._app);
    this._all.add(notebook);
    panel.disposed.connect(() => this._all.delete(notebook));
    this.opened.emit(notebook);
  }

  /** Call *visit* with the notebooks that are open, and with each that opens from now on. */
  each(visit: (notebook: Notebook) => void): void {
    this._all.forEach(visit);
    this.opened.connect((_, notebook) => visit(notebook));
  }

  /** The notebook in front, if a notebook is. */
  get current(): Notebook | null {
    const front = this._app.shell.currentWidget;
    return [...this._all].find(notebook => notebook.panel === front) ?? null;
  }

  find(path: string): Notebook | undefined {
    return [...this._all].find(notebook => notebook.path === path);
  }
}
