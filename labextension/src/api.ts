/** The endpoints under `ipyrescue/`, typed. Knows what the server says, not what is done with it. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export interface ICause {
  kind: string;
  text: string;
  certain: boolean;
  advice: string[];
}

export interface IOfferedSnapshot {
  id: string;
  created: string;
  size_bytes: number;
  variables: number;
  names: string[];
  /** Where to restore to, because a restore as it was killed the kernel. */
  device: 'cpu' | null;
}

export interface IOffer {
  id: string;
  path: string;
  kernel_id: string | null;
  state: 'restarted' | 'dead' | 'found';
  died_at: string | null;
  cell: number | null;
  cause: ICause;
  toast: string;
  message: string;
  snapshot: IOfferedSnapshot | null;
  note: string | null;
}

export interface IProtection {
  /** `unknown` is never answered: it stands where no answer was had. */
  state: 'protected' | 'stale' | 'failing' | 'not_armed' | 'not_loaded' | 'no_kernel' | 'unknown';
  text: string;
  label: string;
}

export interface IMemory {
  rss_bytes: number | null;
  peak_rss_bytes: number | null;
  limit_bytes: number | null;
  cuda_allocated_bytes: number | null;
  cuda_reserved_bytes: number | null;
  warning: string | null;
}

export interface IStatus {
  path: string;
  kernel_id: string | null;
  protection: IProtection;
  memory: IMemory | null;
}

/** Of a damaged or foreign snapshot only the id and the mark are known. */
export interface ISnapshot {
  id: string;
  created: string | null;
  label: string | null;
  trigger: string | null;
  cell: number | null;
  size_bytes: number | null;
  variables: number | null;
  pinned: boolean | null;
  mark: '' | 'interrupted' | 'damaged' | 'foreign';
}

export interface IVariable {
  name: string;
  type: string;
  size_bytes: number;
  cell: number | null;
}

export interface ISkipped {
  name: string;
  type: string;
  reason: string;
}

export interface IContents {
  snapshot: ISnapshot;
  variables: IVariable[];
  skipped: ISkipped[];
}

export interface IDifference {
  older: string;
  newer: string;
  added: Array<Omit<IVariable, 'cell'>>;
  removed: Array<Omit<IVariable, 'cell'>>;
  changed: Array<Omit<IVariable, 'cell'> & { size_bytes_before: number }>;
  same: number;
}

export interface IDeath {
  id: string;
  died_at: string | null;
  cell: number | null;
  cell_source: string | null;
  cause: ICause;
  peak_rss_bytes: number | null;
  limit_bytes: number | null;
  snapshot: { created: string } | null;
}

/** What the server answered instead of what was asked for; the message is a sentence to show. */
export class RequestError extends Error {
  constructor(
    message: string,
    readonly status: number
  ) {
    super(message);
  }
}

/** The server extension, as one notebook's path after the other asks it. */
export class Rescue {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** Whether the server extension is there and lets this user in. */
  async isThere(): Promise<boolean> {
    try {
      await this.offers();
      return true;
    } catch (error) {
      return !(error instanceof RequestError && [403, 404].includes(error.status));
    }
  }

  async offers(path?: string): Promise<IOffer[]> {
    return (await this._request<{ offers: IOffer[] }>('GET', ['offers'], path)).offers;
  }

  dismiss(offer: IOffer): Promise<void> {
    return this._request('DELETE', ['offers', offer.id], offer.path);
  }

  status(path: string): Promise<IStatus> {
    return this._request('GET', ['status'], path);
  }

  async snapshots(path: string): Promise<ISnapshot[]> {
    return (await this._request<{ snapshots: ISnapshot[] }>('GET', ['snapshots'], path)).snapshots;
  }

  contents(path: string, id: string): Promise<IContents> {
    return this._request('GET', ['snapshots', id], path);
  }

  difference(path: string, id: string, other: string): Promise<IDifference> {
    return this._request('GET', ['snapshots', id, 'diff', other], path);
  }

  pin(path: string, id: string, pinned: boolean): Promise<void> {
    return this._request(pinned ? 'PUT' : 'DELETE', ['snapshots', id, 'pin'], path);
  }

  forget(path: string, id: string): Promise<void> {
    return this._request('DELETE', ['snapshots', id], path);
  }

  async deaths(path: string): Promise<IDeath[]> {
    return (await this._request<{ deaths: IDeath[] }>('GET', ['deaths'], path)).deaths;
  }

  private async _request<T>(method: string, segments: string[], path?: string): Promise<T> {
    const address = URLExt.join(this._settings.baseUrl, 'ipyrescue', ...segments.map(encodeURIComponent));
    const query = path === undefined ? '' : URLExt.objectToQueryString({ path });
    const response = await this._answer(address + query, method);
    if (!response.ok) {
      throw new RequestError(await messageOf(response), response.status);
    }
    return response.status === 204 ? (undefined as T) : response.json();
  }

  private async _answer(address: string, method: string): Promise<Response> {
    try {
      return await ServerConnection.makeRequest(address, { method }, this._settings);
    } catch {
      throw new RequestError('The Jupyter server does not answer. Is it still running?', 0);
    }
  }
}

async function messageOf(response: Response): Promise<string> {
  const said = await response.json().catch(() => null);
  return said?.message || `The Jupyter server answered ${response.status} (${response.statusText}). Its log says more.`;
}
