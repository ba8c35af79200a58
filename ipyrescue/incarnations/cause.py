"""Why a kernel died: `Evidence` into a `Cause`, and what would help. Pure.

What is certain comes first: a trace of the kernel's own, then the exit status that a server saw (negative for a
signal, as in Python's `subprocess`), then what the machine counts, and last what only suggests itself. What nothing
speaks for is called unknown.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from ipyrescue.incarnations.evidence import Evidence
from ipyrescue.settings import format_size
from ipyrescue.store.lives import Cause, Memory
from ipyrescue.wording import clean, shortened

NEARLY_FULL = 0.9
"""The share of the memory limit above which a kernel that vanished was most likely killed for it."""

_FATAL = re.compile(r"Fatal Python error: (.+)|Windows fatal exception: (.+)")
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')
_CRASHES = {
    signal.SIGSEGV: ("segmentation_fault", "segmentation fault"),
    signal.SIGABRT: ("aborted", "abort"),
    signal.SIGFPE: ("floating_point_exception", "floating-point exception"),
    signal.SIGILL: ("illegal_instruction", "illegal instruction"),
    **({signal.SIGBUS: ("bus_error", "bus error")} if hasattr(signal, "SIGBUS") else {}),
}
_FATAL_TEXTS = {text.replace("-", " "): number for number, (_, text) in _CRASHES.items()} | {"aborted": signal.SIGABRT}
_SHELL_OFFSET = 128
"""A shell that started the kernel says a signal's number plus this, when it exits in its turn."""
_PLACES = 5
_PLACE_CHARACTERS = 80
_TEXT_CHARACTERS = 200
_CELL_FILE = re.compile(r".*[/\\]ipykernel_\d+[/\\]\d+\.py|<ipython-input-.*>")


def diagnose(evidence: Evidence) -> Cause:
    """Name the cause of a death; the first rule that fits decides."""
    rules = (_told_by_itself, _told_by_the_server, _told_by_a_signal, _told_by_the_machine, _suggested)
    return next(cause for rule in rules for cause in rule(evidence))


def advice(cause: Cause, of: str = "notebook") -> tuple[str, ...]:
    """What would help against the next death of this kind; empty where nothing general can be said.

    *of* is the kind of the life: `notebook`, `script` or `console`.
    """
    return (_FOR_SCRIPTS if of == "script" else _ADVICE).get(cause.kind, _ADVICE.get(cause.kind, ()))


def is_memory_error(error: str | None) -> bool:
    """Whether the last cell had run out of the device's memory."""
    return bool(error) and ("CUDA out of memory" in str(error) or "OutOfMemoryError" in str(error))


def share_of_memory(memory: Memory | None) -> str:
    """Say `31.7 of 32 GB`; empty where it is not known."""
    if memory is None:
        return ""
    if memory.limit_bytes is None:
        return format_size(memory.rss_bytes)
    number, unit = format_size(memory.limit_bytes).split()
    power = {"B": 0, "kB": 1, "MB": 2, "GB": 3, "TB": 4, "PB": 5}[unit]
    return f"{memory.rss_bytes / 1000**power:.1f} of {number} {unit}"


def _told_by_itself(evidence: Evidence) -> Iterator[Cause]:
    match = _FATAL.search(evidence.fault)
    if match is None:
        return
    said = shortened(clean((match[1] or match[2]).strip()), _TEXT_CHARACTERS)
    number = _FATAL_TEXTS.get(said.lower().replace("-", " "))
    if number is not None and evidence.life.exit_code is not None and number != _signal(evidence.life.exit_code):
        return  # a child crashed; the kernel ended otherwise
    kind = _CRASHES[number][0] if number is not None else "fatal_error"
    text = _in_place(said[:1].lower() + said[1:], evidence.fault)
    yield Cause(kind, "crashed", text, place=_places(evidence.fault))


def _told_by_the_server(evidence: Evidence) -> Iterator[Cause]:
    code = evidence.life.exit_code
    if code is None:
        return
    number = _signal(code)
    if number is None:
        yield Cause("exited", "ended", f"its process exited with status {code}, by os._exit or in a library")
    elif _name(number) == "SIGKILL":
        yield from _out_of_memory(evidence)
        yield Cause("killed", "was killed", "SIGKILL, as by kill -9")
    else:
        yield _by_signal(number, evidence)


def _told_by_a_signal(evidence: Evidence) -> Iterator[Cause]:
    for name, _ in evidence.signals:
        yield _by_signal(signal.Signals[name], evidence)


def _told_by_the_machine(evidence: Evidence) -> Iterator[Cause]:
    if evidence.rebooted:
        yield Cause("rebooted", "was lost", "the machine was started anew", certain=False)
    yield from _out_of_memory(evidence)


def _suggested(evidence: Evidence) -> Iterator[Cause]:
    if evidence.parent_gone:
        parent = clean(evidence.life.parent_name or "the process that started it")
        yield Cause("parent_gone", "ended", f"most likely with {parent}, which is gone too", certain=False)
    if is_memory_error(evidence.life.error):
        text = "cause unknown; its last cell had run out of CUDA memory"
        yield Cause("cuda_out_of_memory", "died", text, certain=False)
    yield Cause("unknown", "died", "cause unknown: no trace left, as after kill -9", certain=False)


def _out_of_memory(evidence: Evidence) -> Iterator[Cause]:
    """Killed for its memory. A kill that was counted may have hit another process, such as a worker of a DataLoader."""
    memory = evidence.life.memory
    full = memory is not None and memory.limit_bytes and memory.rss_bytes >= NEARLY_FULL * memory.limit_bytes
    held = f", {share_of_memory(memory)}{'' if full else ' when last looked at'}" if memory is not None else ""
    if evidence.oom_kills and (full or evidence.life.exit_code is not None):
        yield Cause("out_of_memory", "was killed", f"out of memory{held}")
    counted = evidence.oom_kills if evidence.oom_kills is not None else evidence.machine_oom_kills
    if full or counted:
        yield Cause("out_of_memory", "was killed", f"most likely out of memory{held}", certain=False)


def _by_signal(number: int, evidence: Evidence) -> Cause:
    # An idle kernel waits in its event loop, which is no place that anybody looks for.
    trace = dict(evidence.signals).get(_name(number), "") if evidence.life.cell_running else ""
    if number in _CRASHES:
        kind, text = _CRASHES[signal.Signals(number)]
        return Cause(kind, "crashed", text)
    if number == signal.SIGTERM:
        return Cause("terminated", "was terminated", f"SIGTERM{_from_whom(evidence)}", place=_places(trace))
    if _name(number) == "SIGHUP":
        return Cause("hung_up", "was hung up", "SIGHUP: its terminal or connection was closed", place=_places(trace))
    return Cause("signal", "was ended", _name(number), place=_places(trace))


def _from_whom(evidence: Evidence) -> str:
    if evidence.parent_gone and evidence.life.parent_name:
        return f", together with {clean(evidence.life.parent_name)}, which had started it"
    return " from outside, such as kill, docker stop or an editor that was closed"


def _signal(exit_code: int) -> int | None:
    """The number of the signal that ended a process, if one did."""
    if exit_code < 0:
        return -exit_code
    return exit_code - _SHELL_OFFSET if _name(exit_code - _SHELL_OFFSET).startswith("SIG") else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _in_place(text: str, trace: str) -> str:
    places = _places(trace)
    return f"{text} in {places[0]}" if places else text


def _places(trace: str) -> tuple[str, ...]:
    """The frames of the thread that was current, innermost first: `conv2d (functional.py:123)`."""
    frames: list[str] = []
    current = trace[max(trace.find("Current thread"), 0) :]
    for line in current.splitlines()[1:]:
        match = _FRAME.match(line)
        # Below the cell stands IPython, which runs it.
        if match is None or len(frames) == _PLACES or match[1].endswith("interactiveshell.py"):
            break
        file = "cell" if _CELL_FILE.fullmatch(match[1]) else match[1].replace("\\", "/").rpartition("/")[2]
        frames.append(shortened(clean(f"{match[3]} ({file}:{match[2]})"), _PLACE_CHARACTERS))
    return tuple(frames)


_ADVICE: dict[str, tuple[str, ...]] = {
    "out_of_memory": (
        "Free what is not needed: del NAME, then gc.collect(). %checkpoint_vars --status shows the largest variables.",
        "Load less at a time: smaller batches, numpy.memmap, a DataLoader that reads from disk, fewer workers.",
        "Give it more: a larger machine, or a higher memory limit of the container (docker run --memory).",
    ),
    "cuda_out_of_memory": (
        "Make the batch smaller, or collect gradients over several batches.",
        "Free what is not needed: del NAME, then torch.cuda.empty_cache().",
        "Keep numbers, not tensors with graphs: losses.append(loss.item()).",
    ),
    "segmentation_fault": (
        "A library crashed below Python; the place says which. Update it, and torch, numpy and CUDA that fit together.",
        "Run the cell again with fewer threads or workers: such faults often come from two of them at once.",
    ),
    "aborted": ("A library stopped the process below Python; the server's log has its last words.",),
    "killed": ("Ask who may end processes here: a batch system, a watchdog, another user, the container's host.",),
    "terminated": (
        "Detach what must not end with the editor: start Jupyter in tmux, or the container with docker run -d.",
    ),
    "hung_up": ("Start Jupyter in tmux or with nohup, so that it does not end with the terminal.",),
    "parent_gone": ("Start Jupyter in tmux, or the container with docker run -d, so that kernels outlive the editor.",),
    "exited": ("Look for os._exit, sys.exit in threads or a library that ends the process; in a cell, raise instead.",),
}

_DETACH = ("Start it in tmux or with nohup, or the container with docker run -d, so that it outlives the terminal.",)
_FOR_SCRIPTS: dict[str, tuple[str, ...]] = {
    "out_of_memory": ("Free what is not needed: del NAME, then gc.collect().", *_ADVICE["out_of_memory"][1:]),
    "terminated": _DETACH,
    "hung_up": _DETACH,
    "parent_gone": _DETACH,
    "exited": (),
}
