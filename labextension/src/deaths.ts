/** The last deaths of a notebook's kernels into a dialog. */
import type { IDeath, Rescue } from './api';
import { ask } from './dialogs';
import { element } from './dom';
import { formatAge, formatMoment, formatSize, sentence, title } from './wording';

/** Show when and why the kernels of the notebook at *path* died, and what helps. */
export async function showDeaths(rescue: Rescue, path: string): Promise<void> {
  await ask(`Why did the kernel of ${title(path)} die?`, await told(rescue.deaths(path)));
}

async function told(answer: Promise<IDeath[]>): Promise<HTMLElement> {
  try {
    const deaths = await answer;
    return deaths.length > 0
      ? element('div', {}, ...deaths.map(deathOf))
      : element('p', {}, 'No kernel of this notebook is known to have died.');
  } catch (error) {
    return element('p', { className: 'jp-ipyrescue-error' }, sentence(error));
  }
}

function deathOf(death: IDeath): HTMLElement {
  const { cause, cell, cell_source } = death;
  const surely = cause.certain || cause.kind === 'unknown' ? '' : ' (probably)';
  const source = cell_source ? element('pre', { className: 'jp-ipyrescue-source' }, cell_source) : null;
  return element(
    'section',
    { className: 'jp-ipyrescue-death' },
    element('h3', {}, `${moment(death.died_at)}: ${cause.text}${surely}`),
    cell === null ? null : element('p', {}, `Cell [${cell}] was running.`),
    source,
    ...[memoryOf(death), snapshotOf(death)].filter(line => line !== '').map(line => element('p', {}, line)),
    element('ul', { className: 'jp-ipyrescue-advice' }, ...cause.advice.map(line => element('li', {}, line)))
  );
}

function moment(diedAt: string | null): string {
  return diedAt === null ? 'At an unknown time' : `${formatMoment(diedAt)}, ${formatAge(diedAt)}`;
}

function memoryOf({ peak_rss_bytes, limit_bytes }: IDeath): string {
  const limit = limit_bytes === null ? '' : ` of ${formatSize(limit_bytes)}`;
  return peak_rss_bytes === null ? '' : `Its memory had been up to ${formatSize(peak_rss_bytes)}${limit}.`;
}

function snapshotOf({ snapshot }: IDeath): string {
  return snapshot === null ? 'It left no snapshot.' : `Its newest snapshot is from ${formatMoment(snapshot.created)}.`;
}
