"""What the facts say about a death: certain ones first, and what nothing speaks for is called unknown."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.incarnations.cause import advice, diagnose, is_memory_error, share_of_memory
from ipyrescue.incarnations.evidence import SIGNALS
from ipyrescue.store.lives import Memory
from tests.incarnations.samples import FULL, HALF_FULL, a_life, evidence

STACK = """Current thread 0x00007f6eeae3cb80 (most recent call first):
  File "/usr/lib/python3/torch/nn/functional.py", line 123 in conv2d
  File "/home/me/model.py", line 41 in forward
  File "/tmp/ipykernel_123/4028911.py", line 3 in <module>

Extension modules: numpy.core (total: 1)
"""
SEGFAULT = f"Fatal Python error: Segmentation fault\n\n{STACK}"
ABORT = f"Fatal Python error: Aborted\n\n{STACK}"


def kind_of(life=None, **fields):
    return diagnose(evidence(life, **fields)).kind


# --- every kind ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Segmentation fault", "segmentation_fault"),
        ("Aborted", "aborted"),
        ("Floating point exception", "floating_point_exception"),  # until Python 3.12
        ("Floating-point exception", "floating_point_exception"),
        ("Illegal instruction", "illegal_instruction"),
        ("Bus error", "bus_error"),
        ("Cannot recover from stack overflow.", "fatal_error"),
    ],
)
def test_a_crash_is_named_with_its_place(said, kind):
    cause = diagnose(evidence(fault=f"Fatal Python error: {said}\n\n{STACK}"))

    assert (cause.kind, cause.verb, cause.certain) == (kind, "crashed", True)
    assert cause.text == f"{said[0].lower()}{said[1:]} in conv2d (functional.py:123)"
    assert cause.place == ("conv2d (functional.py:123)", "forward (model.py:41)", "<module> (cell:3)")


def test_windows_crashes_are_told_too():
    trace = STACK.replace("/home/me/model.py", r"C:\me\model.py")
    cause = diagnose(evidence(fault=f"Windows fatal exception: access violation\n\n{trace}"))

    assert (cause.kind, cause.text) == ("fatal_error", "access violation in conv2d (functional.py:123)")
    assert cause.place[1] == "forward (model.py:41)"


def test_a_crash_in_a_thread_of_no_python_names_no_place():
    """What Python's threads did at that moment is not where it crashed."""
    cause = diagnose(evidence(fault=SEGFAULT.replace("Current thread", "Thread")))

    assert (cause.kind, cause.text, cause.place) == ("segmentation_fault", "segmentation fault", ())


@pytest.mark.parametrize(
    ("exit_code", "kind", "verb", "text"),
    [
        (-9, "killed", "was killed", "SIGKILL, as by"),
        (137, "killed", "was killed", "SIGKILL, as by"),  # a shell stood between
        (-11, "segmentation_fault", "crashed", "segmentation fault"),
        (-6, "aborted", "crashed", "abort"),
        (-15, "terminated", "was terminated", "SIGTERM from outside"),
        (143, "terminated", "was terminated", "SIGTERM from outside"),
        (-1, "hung_up", "was hung up", "SIGHUP"),
        (-2, "signal", "was ended", "SIGINT"),
        (-99, "signal", "was ended", "signal 99"),
        (0, "exited", "ended", "exited with status 0"),
        (3, "exited", "ended", "exited with status 3"),
        (128, "exited", "ended", "exited with status 128"),
        (255, "exited", "ended", "exited with status 255"),
        (3221225477, "exited", "ended", "exited with status 3221225477"),
    ],
)
def test_an_exit_status_is_told(exit_code, kind, verb, text):
    cause = diagnose(evidence(a_life(exit_code=exit_code)))

    assert (cause.kind, cause.verb, cause.certain) == (kind, verb, True)
    assert text in cause.text


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_that_was_noted_is_told_with_its_place(name):
    cause = diagnose(evidence(signals=((name, STACK),)))

    assert name in cause.text
    assert cause.place[0] == "conv2d (functional.py:123)"


def test_sigterm_together_with_the_parent_is_laid_to_it():
    life = a_life(parent_name="jupyter-lab\x1b[31m")

    cause = diagnose(evidence(life, signals=(("SIGTERM", STACK),), parent_gone=True))

    assert cause.text == r"SIGTERM, together with jupyter-lab\x1b[31m, which had started it"


@pytest.mark.parametrize(
    ("life", "fields", "certain", "text"),
    [
        (a_life(exit_code=-9, memory=FULL), {"oom_kills": 1}, True, "out of memory, 31.7 of 32 GB"),
        (a_life(exit_code=-9), {"oom_kills": 1}, True, "out of memory"),
        (a_life(memory=FULL), {"oom_kills": 1}, True, "out of memory, 31.7 of 32 GB"),
        # Without an exit status it may be another process, such as a worker, that was killed for its memory.
        (
            a_life(memory=HALF_FULL),
            {"oom_kills": 1},
            False,
            "most likely out of memory, 16.0 of 32 GB when last looked at",
        ),
        # It takes less than a second to fill the rest.
        (
            a_life(exit_code=-9, memory=HALF_FULL),
            {"oom_kills": 1},
            True,
            "out of memory, 16.0 of 32 GB when last looked at",
        ),
        (a_life(exit_code=-9, memory=FULL), {}, False, "most likely out of memory, 31.7 of 32 GB"),
        (a_life(memory=FULL), {}, False, "most likely out of memory, 31.7 of 32 GB"),
        (a_life(exit_code=-9), {"machine_oom_kills": 2}, False, "most likely out of memory"),
        (a_life(), {"machine_oom_kills": 2}, False, "most likely out of memory"),
    ],
)
def test_out_of_memory_is_said_as_surely_as_it_is_known(life, fields, certain, text):
    cause = diagnose(evidence(life, **fields))

    assert (cause.kind, cause.verb, cause.certain, cause.text) == ("out_of_memory", "was killed", certain, text)


@pytest.mark.parametrize(
    ("life", "fields", "kind"),
    [
        # A kill elsewhere on the machine says nothing, once it is known that there was none in the kernel's group.
        (a_life(exit_code=-9), {"oom_kills": 0, "machine_oom_kills": 1}, "killed"),
        (a_life(), {"oom_kills": 0, "machine_oom_kills": 1}, "unknown"),
        (a_life(exit_code=-9, memory=HALF_FULL), {"oom_kills": 0}, "killed"),
        (a_life(exit_code=-15, memory=FULL), {"oom_kills": 1}, "terminated"),
        (a_life(memory=Memory(1, 1, limit_bytes=0)), {}, "unknown"),
        (a_life(memory=Memory(10**12, 10**12)), {}, "unknown"),
    ],
)
def test_memory_is_blamed_for_nothing_else(life, fields, kind):
    assert kind_of(life, **fields) == kind


def test_a_machine_that_was_started_anew_is_told():
    cause = diagnose(evidence(rebooted=True, oom_kills=1, parent_gone=True))

    assert (cause.kind, cause.verb, cause.certain) == ("rebooted", "was lost", False)


@pytest.mark.parametrize(("name", "said"), [("code", "with code,"), (None, "with the process that started it,")])
def test_a_parent_that_is_gone_is_named(name, said):
    cause = diagnose(evidence(a_life(parent_name=name), parent_gone=True))

    assert (cause.kind, cause.certain) == ("parent_gone", False)
    assert said in cause.text


def test_a_device_that_ran_out_is_a_hint_only():
    cause = diagnose(evidence(a_life(error="OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB")))

    assert (cause.kind, cause.certain) == ("cuda_out_of_memory", False)
    assert cause.text.startswith("cause unknown; ")


def test_what_nothing_speaks_for_is_unknown():
    cause = diagnose(evidence())

    assert (cause.kind, cause.verb, cause.certain, cause.place) == ("unknown", "died", False, ())
    assert cause.text.startswith("cause unknown")


# --- which fact decides ----------------------------------------------------------------------------------------

FACTS = (
    ({"fault": SEGFAULT}, "segmentation_fault"),
    ({"signals": (("SIGTERM", STACK), ("SIGHUP", STACK))}, "terminated"),
    ({"rebooted": True}, "rebooted"),
    ({"oom_kills": 1}, "out_of_memory"),
    ({"parent_gone": True}, "parent_gone"),
    ({}, "unknown"),
)


@pytest.mark.parametrize("first", range(len(FACTS)), ids=lambda first: FACTS[first][1])
def test_the_surest_fact_decides(first):
    """Each with all that are less sure."""
    fields = {}
    for known, _ in reversed(FACTS[first:]):
        fields |= known

    assert kind_of(**fields) == FACTS[first][1]


@pytest.mark.parametrize(
    ("exit_code", "trace", "kind"),
    [
        (None, SEGFAULT, "segmentation_fault"),
        (-11, SEGFAULT, "segmentation_fault"),
        (139, SEGFAULT, "segmentation_fault"),
        (-6, ABORT, "aborted"),
        (-9, SEGFAULT, "killed"),  # a forked worker crashed; the kernel went on, and was killed later
        (-15, ABORT, "terminated"),
        (1, SEGFAULT, "exited"),
        (-6, "Fatal Python error: init_sys_streams: no\n\n" + STACK, "fatal_error"),
    ],
)
def test_a_trace_that_the_exit_status_contradicts_is_not_the_kernels(exit_code, trace, kind):
    assert kind_of(a_life(exit_code=exit_code), fault=trace) == kind


def test_an_exit_status_decides_over_a_signal_that_was_noted():
    assert kind_of(a_life(exit_code=-9), signals=(("SIGTERM", STACK),)) == "killed"
    assert diagnose(evidence(a_life(exit_code=-15), signals=(("SIGTERM", STACK),))).place


# --- what is not ours to trust ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trace",
    [
        "Fatal Python error: \x1b[2J\u202e" + "x" * 100_000,
        'Fatal Python error: Aborted\n\nCurrent thread\n  File "'
        + "/" * 100_000
        + '", line 1 in \x1b[31m'
        + "f" * 5000,
        "Fatal Python error: Aborted\n\nCurrent thread\n" + '  File "a\x07.py", line 1 in f\n' * 10_000,
        "Fatal Python error: Aborted\n\nCurrent thread\n" + '  File "' * 30_000,
        "Fatal Python error: Segmentation fault\nCurrent thread",
        "Fatal Python error: Aborted",
        "\x00" * 1000,
    ],
    ids=lambda trace: repr(trace[20:40]),
)
def test_hostile_traces_are_harmless(trace):
    for known in (evidence(fault=trace), evidence(signals=(("SIGTERM", trace),))):
        cause = diagnose(known)

        assert cause.text.isprintable()
        assert len(cause.text) < 400
        assert len(cause.place) <= 5
        assert all(line.isprintable() and len(line) <= 80 for line in cause.place)


@given(st.text(), st.none() | st.integers(-(1 << 40), 1 << 40), st.none() | st.text())
def test_whatever_is_written_there_is_a_cause(trace, exit_code, error):
    cause = diagnose(evidence(a_life(exit_code=exit_code, error=error), fault=f"Fatal Python error: {trace}"))

    assert cause.text.isprintable()
    assert cause.verb


# --- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        (None, ""),
        (Memory(1_300_000_000, 0), "1.3 GB"),
        (FULL, "31.7 of 32 GB"),
        (Memory(60_000_000, 0, limit_bytes=64 << 20), "60.0 of 67 MB"),
        (Memory(5, 0, limit_bytes=0), "5.0 of 0 B"),
    ],
)
def test_the_share_of_memory_in_words(memory, told):
    assert share_of_memory(memory) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, False),
        ("ValueError: out of memory", False),
        ("OutOfMemoryError: CUDA out of memory.", True),
        ("RuntimeError: CUDA out of memory. Tried", True),
    ],
)
def test_an_error_of_the_devices_memory_is_known(error, told):
    assert is_memory_error(error) is told


def test_advice_is_for_what_is_known():
    for kind in ("out_of_memory", "segmentation_fault", "terminated"):
        known = {"out_of_memory": {"oom_kills": 1}, "segmentation_fault": {"fault": SEGFAULT}}
        cause = diagnose(evidence(**known.get(kind, {"signals": (("SIGTERM", ""),)})))
        assert cause.kind == kind
        assert all(sentence.isascii() and sentence.endswith((".", ")")) for sentence in advice(cause))
        assert advice(cause)
    assert advice(diagnose(evidence())) == ()


# --- what faulthandler really writes ---------------------------------------------------------------------------

VICTIM = """
import faulthandler, os, signal, sys
fault, signals = open("fault", "w"), open("SIGTERM", "w")
faulthandler.enable(fault, all_threads=True)
faulthandler.register(signal.SIGTERM, signals, all_threads=False, chain=True)
def innermost():
    os.kill(os.getpid(), int(sys.argv[1]))
def outer():
    innermost()
outer()
"""


@pytest.mark.parametrize(
    ("number", "kind", "verb"),
    [
        (signal.SIGSEGV, "segmentation_fault", "crashed"),
        (signal.SIGABRT, "aborted", "crashed"),
        (signal.SIGFPE, "floating_point_exception", "crashed"),
        (signal.SIGBUS, "bus_error", "crashed"),
        (signal.SIGILL, "illegal_instruction", "crashed"),
        (signal.SIGTERM, "terminated", "was terminated"),
    ],
)
def test_a_real_death_is_read_with_its_place(tmp_path, number, kind, verb):
    """Both without and with the exit status that a server would have seen."""
    process = subprocess.run([sys.executable, "-c", VICTIM, str(int(number))], cwd=tmp_path, capture_output=True)
    fault, noted = (tmp_path / "fault").read_text(), (tmp_path / "SIGTERM").read_text()
    signals = (("SIGTERM", noted),) if noted else ()
    assert process.returncode == -number

    for exit_code in (None, process.returncode):
        cause = diagnose(evidence(a_life(exit_code=exit_code), fault=fault, signals=signals))

        assert (cause.kind, cause.verb, cause.certain) == (kind, verb, True)
        assert cause.place == ("innermost (<string>:7)", "outer (<string>:9)", "<module> (<string>:10)")


def test_a_kill_leaves_no_trace(tmp_path):
    number = str(int(signal.SIGKILL))
    subprocess.run([sys.executable, "-c", VICTIM, number], cwd=tmp_path, capture_output=True)

    assert os.listdir(tmp_path)
    assert not any((tmp_path / name).read_text() for name in os.listdir(tmp_path))
