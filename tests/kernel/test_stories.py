"""What users live through: a real kernel trains, is killed by SIGKILL, and a new one goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

TRAINING = """
import torch
from torch import nn
torch.manual_seed(0); torch.set_num_threads(1)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    def forward(self, x):
        return self.body(x)
data = torch.utils.data.TensorDataset(torch.randn(64, 8), torch.randint(0, 2, (64,)))
loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
model = Net()
opt = torch.optim.AdamW(model.parameters(), lr=0.01)
sched = torch.optim.lr_scheduler.StepLR(opt, 2, 0.9)
epoch, losses = 0, []
def train_one_epoch():
    for x, y in loader:
        opt.zero_grad(); loss = nn.functional.cross_entropy(model(x), y); loss.backward(); opt.step()
    sched.step(); losses.append(loss.item())
"""
TRAIN_TO = "while epoch < {}:\n    train_one_epoch(); epoch += 1"
DIGEST = """
import hashlib
def digest():
    h = hashlib.sha256(repr((epoch, losses)).encode())
    for t in [*model.state_dict().values(), *(v for s in opt.state.values() for v in s.values())]:
        h.update(t.numpy().tobytes())
    return h.hexdigest()
"""
SLEEP = "print('running', flush=True)\nimport time\ntime.sleep(600)"


def die_in_a_cell(kernel: Kernel, source: str = SLEEP) -> None:
    kernel.begin(source)
    kernel.wait_for_output("running")
    kernel.kill()


def snapshot_files(folder: Path) -> list[Path]:
    return sorted((folder / ".ipyrescue" / "snapshots").glob("*.json"))


def drain(kernel: Kernel) -> None:
    """Wait until what a cell's end began to write is written."""
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)


def due_snapshot(kernel: Kernel) -> str:
    """End a cell when a snapshot is due and the writer is free, wait until it is written, and return its id."""
    drain(kernel)
    kernel.run("import time; time.sleep(0.25)")
    drain(kernel)
    listed = kernel.run("import ipyrescue; print(ipyrescue.snapshots()[0].id)", store_history=False)
    return listed.stdout.strip()


def uninterrupted(make_kernel: MakeKernel) -> str:
    kernel = make_kernel("other.ipynb")
    kernel.run(TRAINING)
    kernel.run(TRAIN_TO.format(8))
    kernel.run(DIGEST)
    return str(kernel.value("digest()"))


def test_training_goes_on_bit_for_bit_after_sigkill(make_kernel: MakeKernel) -> None:
    """Train, die in the middle of a cell, restore, run the same cell again: every weight equals the other run's."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run(TRAINING)
    first.run("%checkpoint_vars model opt sched every=0.2s")
    first.run(TRAIN_TO.format(3))
    due_snapshot(first)
    die_in_a_cell(first, TRAIN_TO.format(5) + "\n" + SLEEP)

    second = make_kernel()
    told = second.run("%load_ext ipyrescue").stdout
    report = second.run("%restore_vars").text
    assert second.value("epoch") == 3
    second.run(TRAIN_TO.format(8))
    second.run(DIGEST)

    assert "died" in told
    assert "%restore_vars" in told
    assert "Restored" in report
    assert "Armed" in report
    assert second.value("digest()") == uninterrupted(make_kernel)


@pytest.mark.slow
def test_run_all_after_a_crash_does_not_hide_the_old_life(make_kernel: MakeKernel) -> None:
    """The new kernel ran every cell and made more snapshots than are kept; a plain restore brings the old life back."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("x, born = 'old life', 1")
    first.run("%checkpoint_vars x every=0.2s keep=2")
    old = due_snapshot(first)
    die_in_a_cell(first)

    second = make_kernel()
    second.run("%load_ext ipyrescue")
    second.run("x, born = 'new life', 2")
    second.run("%checkpoint_vars x every=0.2s keep=2")
    for number in range(5):
        second.run(f"n = {number}")
        due_snapshot(second)
    restored = second.run("%restore_vars").text

    assert old[:8] in restored
    assert second.value("(x, born)") == ("old life", 1)


def test_restore_train_on_crash_again_restore(make_kernel: MakeKernel) -> None:
    """A restored kernel is armed again as before: nothing is retyped, and the second crash costs no more."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("x = 1")
    first.run("%checkpoint_vars x every=0.2s")
    die_in_a_cell(first)
    second = make_kernel()
    second.run("%load_ext ipyrescue")
    second.run("%restore_vars")
    second.run("x += 1")
    due_snapshot(second)
    die_in_a_cell(second)

    third = make_kernel()
    third.run("%load_ext ipyrescue")
    third.run("%restore_vars")

    assert third.value("x") == 2
    assert "Armed" in third.run("%checkpoint_vars --status").text


def test_a_clean_end_is_no_crash(make_kernel: MakeKernel) -> None:
    """After a polite shutdown the new kernel says what is there, not that something died."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("x = 1\n%checkpoint_vars")
    first.shut_down()

    told = make_kernel().run("%load_ext ipyrescue").stdout

    assert "died" not in told
    assert "1 snapshot" in told


def test_a_living_kernel_is_not_called_dead(make_kernel: MakeKernel) -> None:
    """A second kernel of the same notebook learns that the first still runs."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")

    told = make_kernel().run("%load_ext ipyrescue").stdout

    assert "died" not in told
    assert str(first.pid) in told


def test_two_notebooks_in_one_folder_keep_apart(make_kernel: MakeKernel) -> None:
    """They share a store and never each other's snapshots; --all shows both."""
    one, two = make_kernel("one.ipynb"), make_kernel("two.ipynb")
    for kernel, value in ((one, 1), (two, 2)):
        kernel.run("%load_ext ipyrescue")
        kernel.run(f"x = {value}\n%checkpoint_vars")
    one.run("x = None")
    one.run("%restore_vars")

    everything = one.run("%snapshots --all").text

    assert one.value("x") == 1
    assert "one.ipynb" in everything
    assert "two.ipynb" in everything
    assert "two.ipynb" not in one.run("%snapshots").text


def test_a_cell_that_raises_leaves_an_interrupted_snapshot(make_kernel: MakeKernel) -> None:
    """It is saved with the traceback's last line, holds one slot, and is not taken over a consistent one."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.run("x = 1")
    kernel.run("%checkpoint_vars x every=1h")
    for message in ("first", "second", "third"):
        assert kernel.try_run(f"x = 2\nraise ValueError('{message}')").error == f"ValueError: {message}"
        drain(kernel)
    kernel.run("x = 1\n%checkpoint_vars")
    kernel.run("%checkpoint_vars")
    assert kernel.try_run("x = 2\nraise ValueError('last')").error
    drain(kernel)
    table = kernel.run("%snapshots --json").data[0]["application/json"]["snapshots"]
    restored = kernel.run("%restore_vars").text

    interrupted = [row for row in table if row["cut"] == "interrupted"]
    assert [row["trigger"] for row in interrupted] == ["exception"]
    assert kernel.value("x") == 1
    assert interrupted[0]["id"][:8] in restored
    assert "ValueError: last" in restored


def test_hidden_cells_and_usage_errors_do_not_count(make_kernel: MakeKernel) -> None:
    """Silent and unstored cells make no snapshot, and neither does a magic that was typed wrongly."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.run("%checkpoint_vars every=0.01s")
    kernel.run("%checkpoint_vars --off")
    kernel.run("%checkpoint_vars every=1h")
    before = kernel.value("len(__import__('ipyrescue').snapshots())")
    kernel.try_run("1/0", silent=True)
    kernel.try_run("1/0", store_history=False)
    kernel.try_run("%checkpoint_vars every=nonsense")

    assert kernel.value("len(__import__('ipyrescue').snapshots())") == before


def test_checkpoint_without_every_is_durable_and_arms_nothing(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """When the line returns the snapshot is on disk, whatever happens next; and no other follows."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.begin("x = 41\n%checkpoint_vars\nprint('running', flush=True)\nimport time\ntime.sleep(600)")
    kernel.wait_for_output("running")
    kernel.kill()

    second = make_kernel()
    second.run("%load_ext ipyrescue\n%restore_vars")

    assert len(snapshot_files(tmp_path)) == 1
    assert second.value("x") == 41
    assert "Not armed" in second.run("%checkpoint_vars --status").text


def test_loading_saves_nothing_and_unloading_leaves_nothing(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """%load_ext arms detection only; after %unload_ext the kernel is as it was."""
    kernel = make_kernel()
    kernel.run("import threading\nip = get_ipython()\n%load_ext storemagic")
    state = (
        "(sorted(ip.magics_manager.magics['line']), sorted(ip.magics_manager.magics['cell']), "
        "{k: len(v) for k, v in ip.events.callbacks.items()}, sorted(t.name for t in threading.enumerate() "
        "if t.name.startswith('ipyrescue')), 'do_shutdown' in vars(ip.kernel), len(ip.configurables), "
        "sorted(n for n in vars(ip) if 'rescue' in n), sorted(n for n in ip.user_ns if 'rescue' in n))"
    )
    before = kernel.value(state)
    kernel.run("%load_ext ipyrescue")
    assert not snapshot_files(tmp_path)
    kernel.run("%checkpoint_vars every=1s")
    kernel.run("%unload_ext ipyrescue")

    assert kernel.value(state) == before
    kernel.run("%load_ext ipyrescue\n%restore_vars --list")


def test_the_report_has_text_html_and_json(make_kernel: MakeKernel) -> None:
    """One line with numbers; HTML that follows the theme; JSON for agents."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.run("gen = (i for i in 'ab')\nx = 1")
    data = kernel.run("%checkpoint_vars").data[0]

    assert re.fullmatch(
        r"Saved 1 variable, [\d.]+ kB \([\d.]+ kB new\), paused [\d.]+ m?s\. "
        r"Left out 1: gen \(generator, made in cell \[2\]\)\.",
        data["text/plain"],
    )
    assert "--jp-" in data["text/html"]
    answer = kernel.run("%checkpoint_vars --json").data[0]["application/json"]
    assert answer["snapshot"]["variables"][0]["name"] == "x"
    assert json.dumps(answer)


def test_a_report_is_shown_also_where_ipython_would_drop_it(make_kernel: MakeKernel) -> None:
    """A magic above the last line of its cell is heard; an assigned one is not; nothing is shown twice."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")

    assert kernel.run("%checkpoint_vars\nx = 1").text.count("Saved") == 1
    assert kernel.run("x = 1\n%checkpoint_vars").text.count("Saved") == 1
    assert kernel.run("report = %checkpoint_vars").text.count("Saved") == 0
    assert kernel.value("report.snapshot.label") is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("%checkpoint_vars modle", "modle"),
        ("%checkpoint_vars evry=5m", "every"),
        ("%restore_vars from=nothing", "nothing"),
        ("%restore_vars as=old-", "Write it like old_"),
        ("%checkpoint_vars --only", "model opt --only"),
        ("%snapshots pin 3f9c", "matches no snapshot"),
        ("%restore_vars device=cuda", "device=cpu"),
        ("%%checkpoint_vars model\nx = 1", "Say how often: %%checkpoint_vars every=5m"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(make_kernel: MakeKernel, line: str, told: str) -> None:
    """No traceback: one line that says what to type."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nmodel = 1")

    output = kernel.try_run(line)

    assert told in output.text + (output.error or "")
    assert "Traceback" not in output.text
    assert len(output.stderr.strip().splitlines()) == 1


def test_what_is_pinned_stays_while_others_rotate(make_kernel: MakeKernel) -> None:
    """Pinned, it outlives its turn and refuses to be forgotten; unpinned, it goes like the others."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 0\n%checkpoint_vars x every=1h keep=1")
    first = kernel.run("import ipyrescue; print(ipyrescue.snapshots()[0].id)", store_history=False).stdout.strip()
    pinned = kernel.run(f"%snapshots pin {first[:8]}").text
    for number in range(1, 5):
        kernel.run(f"x = {number}\n%checkpoint_vars")
    rows = kernel.run("%snapshots --json").data[0]["application/json"]["snapshots"]
    refused = kernel.try_run(f"%snapshots forget {first[:8]}")
    shown = kernel.run(f"%snapshots show {first[:8]}").text
    kernel.run(f"%snapshots unpin {first[:8]}\n%snapshots forget {first[:8]}")

    assert "pinned" in pinned
    assert [row["id"] for row in rows if row["pinned"]] == [first]
    assert f"%snapshots unpin {first[:8]}" in refused.stderr
    assert "Pinned" in shown
    assert first[:8] not in kernel.run("%snapshots").text


def test_two_snapshots_are_compared(make_kernel: MakeKernel) -> None:
    """What a cell made, changed and dropped; without ids the latest two, with one up to the latest."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport os\nkept, x, gone = [1], 1, 2\n%checkpoint_vars label=start")
    kernel.run("x, new = 5, 6\ndel gone\n%checkpoint_vars")
    kernel.run("%checkpoint_vars")

    told = kernel.run("%snapshots diff start latest~1").data[0]
    answer = kernel.run("%snapshots diff start --json").data[0]["application/json"]

    assert "1 added, 1 removed, 1 changed, 2 the same" in told["text/plain"]
    assert "<td" in told["text/html"]
    assert [item["name"] for item in (*answer["added"], *answer["removed"], *answer["changed"])] == ["new", "gone", "x"]
    assert answer["same"] == 2
    assert "4 the same" in kernel.run("%snapshots diff").text


def test_device_cpu_is_taken_by_the_magic_and_by_the_function(make_kernel: MakeKernel) -> None:
    """Here nothing has to move, so nothing is said; another device is refused before anything is bound."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport torch, ipyrescue\nx = torch.arange(3)\n%checkpoint_vars")
    kernel.run("x = None")
    refused = kernel.try_run("ipyrescue.restore(device='cuda')")
    told = kernel.run("%restore_vars device=cpu").text
    kernel.run("x = None; r = ipyrescue.restore(device='cpu')")

    assert "device='cpu'" in str(refused.error)
    assert "Restored" in told
    assert "CPU" not in told
    assert kernel.value("(x.tolist(), r.warnings)") == ([0, 1, 2], ())


def test_a_full_disk_does_not_stop_the_users_cell(make_kernel: MakeKernel) -> None:
    """A failed scheduled save is told once on the next cell, the cell's own work goes on, recovery is told too."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    kernel.run("x = 1")
    kernel.run("%checkpoint_vars x every=0.05s")
    kernel.run("import resource\nlimit = resource.getrlimit(resource.RLIMIT_FSIZE)")
    kernel.run("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
    drain(kernel)
    told = kernel.run("resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))\nx = list(range(100_000))").stderr
    for _ in range(3):
        told += kernel.run("import time; time.sleep(0.2); y = 2").stderr
        told += kernel.run("get_ipython()._ipyrescue.drain()", store_history=False).stderr
    kernel.run("resource.setrlimit(resource.RLIMIT_FSIZE, limit)")
    status = kernel.run("%checkpoint_vars --status").text

    assert told.count("NOT saved") == 1
    assert kernel.value("y") == 2
    assert "NOT PROTECTED" in status


def test_a_console_takes_no_other_consoles_snapshot_unasked(make_kernel: MakeKernel) -> None:
    """A kernel without a notebook is known by its folder only: another's snapshot is named, not taken."""
    first = make_kernel(None)
    first.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars")
    first.kill()
    second = make_kernel(None)
    second.run("%load_ext ipyrescue")

    refused = second.try_run("%restore_vars")
    source = re.search(r"from=([0-9a-f]{8})", refused.text + str(refused.error))

    assert source is not None
    second.run(f"%restore_vars from={source[1]}")
    assert second.value("x") == 1


def test_vs_codes_late_name_is_followed(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """VS Code tells the notebook's path after extensions are loaded; snapshots are the notebook's all the same."""
    kernel = make_kernel(None)
    kernel.run("%load_ext ipyrescue")
    kernel.run(f"__vsc_ipynb_file__ = {str(tmp_path / 'late.ipynb')!r}", store_history=False)
    kernel.run("x = 1\n%checkpoint_vars")
    die_in_a_cell(kernel)

    second = make_kernel("late.ipynb")
    told = second.run("%load_ext ipyrescue").stdout
    second.run("%restore_vars")

    assert "late.ipynb died" in told
    assert second.value("x") == 1


def test_a_store_in_another_home_needs_the_key_or_trust(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Another home has another key: refused with owner and fingerprint, restored with the key file or by --trust."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 7\n%checkpoint_vars")
    first.shut_down()
    data_dir = first.run_environment["JUPYTER_DATA_DIR"]

    stranger = make_kernel(JUPYTER_DATA_DIR=str(tmp_path / "home"))
    told = stranger.run("%load_ext ipyrescue").stdout
    refused = stranger.try_run("%restore_vars")
    name = stranger.value("__import__('os').listdir('.ipyrescue/snapshots')")[0][11:19]
    listed = stranger.run("%snapshots").text
    shown = stranger.run(f"%snapshots show {name}").text
    safely = stranger.run(f"%restore_vars from={name} --safe").text
    stranger.run("assert x == 7\ndel x")
    trusted = stranger.run(f"%restore_vars from={name} --trust").text
    with_key = make_kernel(
        JUPYTER_DATA_DIR=str(tmp_path / "home"), IPYRESCUE_KEY_FILE=str(Path(data_dir) / "ipyrescue" / "key")
    )

    assert "the key that signed them is not here" in told
    assert "Restored" not in refused.text
    assert re.search(rf"{name} .* foreign, key [0-9a-f]{{8}} of uid \d+ on ", listed)
    assert "It is foreign: signed with key" in shown
    assert "Restored 1 variable" in safely
    assert "fingerprint" in trusted or "signature of key" in trusted
    assert stranger.value("x") == 7
    assert "cannot be read" in with_key.run("%load_ext ipyrescue").stdout


def test_the_key_file_restores_in_another_home(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """IPYRESCUE_KEY_FILE is all that another home needs."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 7\n%checkpoint_vars")
    first.shut_down()
    key = Path(first.run_environment["JUPYTER_DATA_DIR"]) / "ipyrescue" / "key"

    second = make_kernel(JUPYTER_DATA_DIR=str(tmp_path / "home"), IPYRESCUE_KEY_FILE=str(key))
    second.run("%load_ext ipyrescue\n%restore_vars")

    assert second.value("x") == 7


def test_the_public_functions_do_what_the_magics_do(make_kernel: MakeKernel) -> None:
    """checkpoint, restore and snapshots fill in this kernel's namespace and store."""
    kernel = make_kernel()
    kernel.run("import ipyrescue\nx = [1]\ns = ipyrescue.checkpoint(['x'], label='warm')")
    kernel.run("x = None\nr = ipyrescue.restore('warm', names=['x'])")

    assert kernel.value("(x, r.names, s.label, [t.id for t in ipyrescue.snapshots()] == [s.id])") == (
        [1], ("x",), "warm", True,
    )  # fmt: skip


def test_what_can_never_fit_is_refused_with_the_numbers(make_kernel: MakeKernel) -> None:
    """Arming on a disk that cannot hold two snapshots and a third is no protection: it is said before, not after."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport numpy as np\nx = np.random.rand(1_000_000)")
    kernel.run(
        "import ipyrescue.kernel.notebook as n, ipyrescue.store.room as r\nn.room = lambda root: r.Room(12_000_000)"
    )

    once = kernel.run("%checkpoint_vars").text
    armed = kernel.try_run("%checkpoint_vars x every=5m")

    assert "Saved" in once
    assert "24 MB are needed" in armed.stderr
    assert "Not armed" in kernel.run("%checkpoint_vars --status").text


def test_ctrl_c_leaves_an_interrupted_snapshot(make_kernel: MakeKernel) -> None:
    """What a loop had reached when it was stopped is there, by name, and not by default."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport time\nstep = 0\n%checkpoint_vars step every=1h")
    kernel.begin("while True:\n    step += 1\n    time.sleep(0.001)\n    if step == 5: print('running', flush=True)")
    kernel.wait_for_output("running")
    kernel.manager.interrupt_kernel()
    kernel.client.get_shell_msg(timeout=60)
    drain(kernel)
    reached = kernel.value("step")
    table = kernel.run("%snapshots --json").data[0]["application/json"]["snapshots"]
    stopped = next(row for row in table if row["cut"] == "interrupted")
    kernel.run("step = None")
    kernel.run(f"%restore_vars step from={stopped['id'][:8]}")

    assert kernel.value("step") == reached > 0
    kernel.run("%restore_vars")
    assert kernel.value("step") == 0


def test_a_polite_shutdown_finishes_what_is_being_written(make_kernel: MakeKernel) -> None:
    """A snapshot that the last cell's end began is durable although the kernel was told to go at once."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nimport numpy as np\nx = np.zeros(1)\n%checkpoint_vars x every=0.01s")
    drain(first)
    first.run("import time; time.sleep(0.05); x = np.ones(5_000_000)")
    first.shut_down()

    second = make_kernel()
    second.run("%load_ext ipyrescue\n%restore_vars")

    assert second.value("x.size") == 5_000_000


@pytest.mark.slow
def test_a_death_that_left_nothing_is_told_once_and_hides_nothing(make_kernel: MakeKernel) -> None:
    """A life that died before it saved anything does not stand before the one that did."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 'first'\n%checkpoint_vars")
    die_in_a_cell(first)
    second = make_kernel()
    second.run("%load_ext ipyrescue")
    die_in_a_cell(second)

    third = make_kernel()
    told = third.run("%load_ext ipyrescue").stdout
    third.shut_down()
    fourth = make_kernel()
    told_again = fourth.run("%load_ext ipyrescue").stdout
    fourth.run("%restore_vars")

    assert "The newest snapshot from before it" in told
    assert "Its newest snapshot" in told_again
    assert fourth.value("x") == "first"


def test_a_snapshot_by_hand_while_armed_restores_armed(make_kernel: MakeKernel) -> None:
    """A label in the middle of an armed session does not cost the protection after the next crash."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars x every=1h")
    first.run("x = 2\nimport ipyrescue\nipyrescue.checkpoint(label='by-hand')")
    die_in_a_cell(first)

    second = make_kernel()
    second.run("%load_ext ipyrescue")

    assert "Armed" in second.run("%restore_vars").text
    assert second.value("x") == 2


def test_a_key_that_vanishes_is_put_back(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """What is reported as saved can be restored by the next kernel."""
    home = str(tmp_path / "home")
    first = make_kernel(JUPYTER_DATA_DIR=home)
    first.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars")
    (tmp_path / "home" / "ipyrescue" / "key").unlink()
    first.run("x = 2\n%checkpoint_vars")
    first.kill()

    second = make_kernel(JUPYTER_DATA_DIR=home)
    second.run("%load_ext ipyrescue\n%restore_vars")

    assert second.value("x") == 2


def test_a_kernel_without_the_key_does_not_dismiss_the_dead(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """It cannot see what the dead one left, so it must not say that nothing is there."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 'precious'\n%checkpoint_vars")
    die_in_a_cell(first)
    keyless = make_kernel(IPYRESCUE_KEY_FILE=str(tmp_path / "nowhere"))
    keyless.run("%load_ext ipyrescue")
    die_in_a_cell(keyless)

    third = make_kernel()
    third.run("%load_ext ipyrescue\nx = 'new'\n%checkpoint_vars")
    third.run("%restore_vars")

    assert third.value("x") == "precious"


def test_a_deleted_working_directory_stops_nothing(make_kernel: MakeKernel) -> None:
    """Snapshots go on, and a restore binds and reports."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport os\nx = 1")
    kernel.run("os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())")
    kernel.run("%checkpoint_vars")
    kernel.run("x = 2")

    assert "Restored" in kernel.run("%restore_vars").text
    assert kernel.value("x") == 1


def test_a_reducer_that_panics_does_not_hang_the_cell(make_kernel: MakeKernel) -> None:
    """What a Rust library raises is no Exception; the cell ends all the same, and the rest is saved."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%checkpoint_vars every=0.01s")
    kernel.run(
        "class Panic(BaseException): pass\nclass Rude:\n    def __getstate__(self): raise Panic()\n"
        "rude, kept = Rude(), 7\nimport time; time.sleep(0.05)"
    )
    drain(kernel)

    assert "kept" in kernel.run("%snapshots show latest").text
