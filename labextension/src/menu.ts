/** The menu of the status button: what is known, then what can be done. */
import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';

import type { IMemory, IStatus } from './api';
import { COMMANDS } from './commands';
import type { Protection } from './protection';
import { formatSize } from './wording';

const LINE_CHARACTERS = 68;
const PATIENCE_MILLISECONDS = 500;

/** Ask how things stand, not for long, and open the menu with the answer. */
export async function openFreshMenu(
  button: HTMLElement,
  commands: CommandRegistry,
  protection: Protection
): Promise<void> {
  const patience = new Promise(resolve => setTimeout(resolve, PATIENCE_MILLISECONDS));
  await Promise.race([protection.refresh(), patience]);
  openMenu(button, commands, protection);
}

/** Open the menu beside *button*: below it, or above it at the foot of the window. */
function openMenu(button: HTMLElement, commands: CommandRegistry, protection: Protection): void {
  const menu = new Menu({ commands: new CommandRegistry() });
  menu.addClass('jp-ThemedContainer');
  menu.addClass('jp-ipyrescue-menu');
  linesOf(protection.status).forEach((line, index) => addLine(menu, `line-${index}`, line));
  menu.addItem({ type: 'separator' });
  COMMANDS.forEach(id => addCommand(menu, commands, id));
  menu.aboutToClose.connect(() => button.focus());
  const { left, top, bottom } = button.getBoundingClientRect();
  // A menu that would leave the window below is put above the point where it was opened.
  menu.open(left, bottom > window.innerHeight / 2 ? top : bottom);
}

function linesOf(status: IStatus | null): string[] {
  if (status === null) {
    return [];
  }
  const { protection, memory } = status;
  return [...wrapped(protection.text), ...(memory ? memoryLines(memory) : [])];
}

function memoryLines(memory: IMemory): string[] {
  const limit = memory.limit_bytes === null ? '' : ` of ${formatSize(memory.limit_bytes)}`;
  const parts = [
    memory.rss_bytes === null ? '' : `Memory ${formatSize(memory.rss_bytes)}${limit}`,
    memory.peak_rss_bytes === null ? '' : `peak ${formatSize(memory.peak_rss_bytes)}`,
    memory.cuda_allocated_bytes === null ? '' : `CUDA ${formatSize(memory.cuda_allocated_bytes)}`,
    memory.cuda_reserved_bytes === null ? '' : `reserved ${formatSize(memory.cuda_reserved_bytes)}`
  ];
  const known = parts.filter(part => part !== '').join(', ');
  return [...(known ? [known] : []), ...(memory.warning ? wrapped(memory.warning) : [])];
}

/** A menu does not wrap; long sentences take several of its lines. */
function wrapped(text: string): string[] {
  const lines = [''];
  for (const word of text.split(/\s+/)) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (longer.length <= LINE_CHARACTERS) {
      lines[lines.length - 1] = longer;
    } else {
      lines.push(word);
    }
  }
  return lines;
}

function addLine(menu: Menu, command: string, label: string): void {
  menu.commands.addCommand(command, { label, isEnabled: () => false, execute: () => undefined });
  menu.addItem({ command });
}

function addCommand(menu: Menu, commands: CommandRegistry, command: string): void {
  menu.commands.addCommand(command, {
    label: commands.label(command),
    isEnabled: () => commands.isEnabled(command),
    execute: () => commands.execute(command)
  });
  menu.addItem({ command });
}
