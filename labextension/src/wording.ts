/** Single values into the words that are shown, the same words as the package's own reports. Pure. */

/** More of a notification is not shown by JupyterLab. */
const TOAST_CHARACTERS = 140;

/** Say how many bytes, in powers of ten: `812 B`, `41 MB`, `1.3 GB`. */
export function formatSize(sizeBytes: number | null): string {
  if (sizeBytes === null) {
    return '';
  }
  if (sizeBytes < 1000) {
    return `${sizeBytes} B`;
  }
  const units = ['kB', 'MB', 'GB', 'TB', 'PB'];
  let value = sizeBytes / 1000;
  while (value >= 999.5 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

/** Say how long ago an ISO 8601 moment was: `just now`, `42 s ago`, `3 min ago`. */
export function formatAge(moment: string): string {
  const seconds = Math.round((Date.now() - Date.parse(moment)) / 1000);
  if (Number.isNaN(seconds)) {
    return 'at an unknown time';
  }
  if (seconds < 3) {
    return 'just now';
  }
  const [unit, name] = ([[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']] as const).find(([unit]) => seconds >= unit)!;
  return `${Math.floor(seconds / unit)} ${name} ago`;
}

/** Say when, in local time, as this browser writes it: the time of today, the day in front of any other. */
export function formatMoment(moment: string): string {
  const date = new Date(moment);
  const time = date.toLocaleTimeString();
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

/** Say how many: `1 variable`, `12 variables`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

/** The name of the notebook in a contents path. */
export function title(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Whether a notification shows all of a text. */
export function fitsToast(text: string): boolean {
  return text.length <= TOAST_CHARACTERS;
}

/** Cut a text to what a notification shows. */
export function shortened(text: string): string {
  return fitsToast(text) ? text : `${text.slice(0, TOAST_CHARACTERS - 4).trimEnd()} ...`;
}

/** The sentence of whatever was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
