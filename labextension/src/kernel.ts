/** Lines for a kernel into the text that it reports. Knows no notification and no endpoint of ipyrescue. */
import type { Kernel, KernelMessage, ServiceManager } from '@jupyterlab/services';

const DIED = 'The kernel died or was restarted before it had finished.';
const LOST = 'The connection to the kernel was lost. Whether it has finished is not known.';
const NOT_INSTALLED = "The kernel's environment has no ipyrescue: pip install ipyrescue there.";

/** A cell that fails makes the kernel drop what waits behind it; so often is it sent again. */
const ATTEMPTS = 3;

/** Find the kernel with *kernelId* or, where that runs no more, the one which the notebook at *path* has now. */
export async function findKernel(
  { kernels, sessions }: ServiceManager.IManager,
  path: string,
  kernelId: string | null
): Promise<Kernel.IModel | null> {
  await Promise.all([kernels.refreshRunning(), sessions.refreshRunning()]);
  const running = [...kernels.running()];
  const session = [...sessions.running()].find(session => session.path === path);
  return running.find(({ id }) => id === kernelId) ?? running.find(({ id }) => id === session?.kernel?.id) ?? null;
}

/** Execute *code* beside the notebook's own cells; return its report or throw its error's sentence. */
export async function runMagics(kernels: Kernel.IManager, model: Kernel.IModel, code: string): Promise<string> {
  const kernel = kernels.connectTo({ model, handleComms: false });
  try {
    for (let attempt = 1; ; attempt++) {
      const { reply, report } = await Promise.race([execute(kernel, code), end(kernel)]);
      if (reply.status === 'ok') {
        return report;
      }
      if (reply.status === 'error') {
        throw new Error(sentenceOf(reply));
      }
      if (attempt === ATTEMPTS) {
        throw new Error('The kernel dropped it, because the cell before it failed.');
      }
    }
  } finally {
    kernel.dispose();
  }
}

interface IAnswer {
  reply: KernelMessage.IExecuteReplyMsg['content'];
  report: string;
}

async function execute(kernel: Kernel.IKernelConnection, code: string): Promise<IAnswer> {
  let report = '';
  const future = kernel.requestExecute({ code, store_history: false, allow_stdin: false });
  future.onIOPub = message => {
    report = reportOf(message) ?? report;
  };
  const reply = await future.done.catch(() => {
    throw new Error(DIED);
  });
  return { reply: reply.content, report };
}

/** Reject when the kernel ends or cannot be reached any more; never resolve. */
function end(kernel: Kernel.IKernelConnection): Promise<never> {
  return new Promise((_, reject) => {
    kernel.statusChanged.connect((_, status) => {
      if (['restarting', 'autorestarting', 'dead'].includes(status)) {
        reject(new Error(DIED));
      }
    });
    kernel.connectionStatusChanged.connect((_, status) => {
      if (status === 'disconnected') {
        reject(new Error(LOST));
      }
    });
  });
}

function reportOf(message: KernelMessage.IIOPubMessage): string | null {
  if (!['execute_result', 'display_data'].includes(message.header.msg_type)) {
    return null;
  }
  const { data } = message.content as KernelMessage.IDisplayDataMsg['content'];
  return data['text/plain'] ? String(data['text/plain']) : null;
}

function sentenceOf(error: KernelMessage.IReplyErrorContent): string {
  const missing = error.ename === 'ModuleNotFoundError' && error.evalue.includes("'ipyrescue'");
  return missing ? NOT_INSTALLED : error.evalue || error.ename;
}
