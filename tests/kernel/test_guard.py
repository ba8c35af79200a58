"""`ipyrescue.guard` around a block: in a notebook, in a module run as a script, and where nothing can be saved."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernels import Kernel

STATE = """
from ipyrescue.kernel.session import recorder

def every():
    armed = recorder().armed
    return armed and armed.settings.every_seconds
"""


def test_a_block_of_a_notebook_is_armed_and_then_it_is_as_before(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel()
    kernel.run("import ipyrescue\nlosses = []" + STATE)
    kernel.run("with ipyrescue.guard('losses', every='1h'):\n    losses.append(every())")
    assert kernel.value("(losses, every(), len(ipyrescue.snapshots()))") == ([3600.0], None, 1)

    raised = kernel.try_run("with ipyrescue.guard(every='1h'):\n    losses.append(1 / 0)")
    assert "ZeroDivisionError" in raised.error
    assert kernel.value("(ipyrescue.snapshots()[0].cut, every())") == ("interrupted", None)

    kernel.run("%checkpoint_vars every=2h")
    kernel.run("with ipyrescue.guard(every='1h'):\n    losses.append(every())")
    assert kernel.value("(losses, every())") == ([3600.0, 3600.0], 7200.0)


def test_a_module_that_is_run_as_a_script(tmp_path: Path) -> None:
    """Nested guards, functions of the package, and messages that name functions; nothing loads IPython."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "calling.py").write_text("def call(function):\n    here = 'calling'\n    return function()\n")
    (package / "train.py").write_text(
        dedent("""
            import sys
            import ipyrescue
            from package import calling

            def work(local):
                return calling.call(ipyrescue.checkpoint)

            print(ipyrescue.resume())
            with ipyrescue.guard(every="1h"):
                with ipyrescue.guard("x", every="2h"):
                    x = 1
                    work(5)
                try:
                    with ipyrescue.guard():
                        raise KeyError("caught by the program")
                except KeyError:
                    x = 2
            for source in (None, "nothing"):
                try:
                    print(x, ipyrescue.restore(source).full, x, ipyrescue.frames())
                except ipyrescue.SnapshotNotFoundError as error:
                    print(error)
            (snapshot,) = ipyrescue.snapshots()
            print(snapshot.notebook, snapshot.cut, "IPython" in sys.modules)
        """)
    )
    ran = run_script(tmp_path, "-m", "package.train")
    assert ran.stderr == ""
    first, restored, *frames, unknown, last = ran.stdout.splitlines()
    assert (first, last) == ("None", "train.py line False")
    assert restored.startswith("2 True 1 ")
    assert "work()" in restored + "".join(frames)
    assert "call()" in restored + "".join(frames)
    assert "ipyrescue.snapshots()" in unknown
    assert "%" not in unknown


def test_what_cannot_be_saved_is_told_at_once(tmp_path: Path) -> None:
    """The block may go on for hours; it is told of once, and the program does not notice."""
    (tmp_path / "file").touch()
    (tmp_path / "train.py").write_text(
        dedent("""
            import io, sys, time
            import ipyrescue

            sys.stderr = io.StringIO()
            deadline = time.monotonic() + 60
            with ipyrescue.guard(every="0.1s"):
                while "NOT saved" not in sys.stderr.getvalue() and time.monotonic() < deadline:
                    time.sleep(0.01)
            print(sys.stderr.getvalue())
        """)
    )
    ran = run_script(tmp_path, "train.py", IPYRESCUE_STORE=str(tmp_path / "file" / "store"))
    assert ran.stdout.count("NOT saved") == 1
    assert (ran.stderr, ran.returncode) == ("", 0)


def run_script(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a terminal does."""
    environment = {**os.environ, "IPYRESCUE_MAX_SHARE": "100%", **environ}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
