"""A snapshot restored in a fresh process, without a kernel: what is lossy is found, what kills costs itself."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipyrescue.checking import supervising
from ipyrescue.checking.verdicts import DIFFERS, FAILED, INCOMPARABLE, SAME, UNCHECKED, Checked, Verdict
from ipyrescue.store import signing

if TYPE_CHECKING:
    from namespaces import Life

FINE = """
import collections, functools, json
xs, tag, words, big = [1, 2.5, {"a", "b", "c"}], b"x", {"k": [None]}, list(range(5000))
alias = xs
def area(r, pi=3): return r * r * pi
class Point:
    def __init__(self): self.x, self.seen = 1, {"b", "a"}
point = Point()
counter = collections.Counter("abca")
"""
LOSSY = """
class Drops:
    def __init__(self): self.kept, self.cache = 1, {"x": [1]}
    def __getstate__(self): return {"kept": self.kept}
class Rounds:
    def __init__(self, value): self.value = value
    def __reduce__(self): return Rounds, (float(round(self.value)),)
class Other:
    def __reduce__(self): return list, ()
class Raises:
    def __init__(self): self.a = 1
    def __setstate__(self, state): raise ValueError("not today")
class Forgets:
    def __init__(self): self.items = [1]
    def __setstate__(self, state): self.items = list(state["items"]); self.again = self.items
drops, rounds, other, raises, forgets = Drops(), {"deep": [Rounds(1.5)]}, Other(), Raises(), Forgets()
import sys, types
fleeting = types.ModuleType("fleeting")
exec("class Held: pass", fleeting.__dict__)
sys.modules["fleeting"] = fleeting
held = fleeting.Held()
"""
KILLERS = """
class Exits:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import os; os._exit(7)
class Crashes:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import os; os.kill(os.getpid(), 11)
class Hangs:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import time; time.sleep(600)
class Noisy:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import sys; print("noise"); print("noise", file=sys.stderr); self.__dict__ = state; input_is_closed()
def input_is_closed():
    import os; assert os.readlink("/proc/self/fd/0") == os.devnull
exits, crashes, hangs, noisy, before, z_after = Exits(), [Crashes()], Hangs(), Noisy(), [1], {"fine": [2]}
"""


@pytest.fixture
def said() -> list[str]:
    return []


def check(
    life: Life, said: list[str] | None = None, *, timeout_seconds: float = 60.0, room_bytes: int = 1 << 40
) -> Checked:
    snapshot = life.checkpoint()
    place = supervising.Place(life.store.root, signing.key_path())
    heard = said.append if said is not None else lambda words: None
    with life.as_main():
        return supervising.check(
            snapshot, life.names, place, timeout_seconds=timeout_seconds, room_bytes=room_bytes, progress=heard
        )


def by_name(checked: Checked) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in checked.verdicts}


def written(life: Life) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in life.store.root.rglob("*") if path.is_file())


def test_what_is_saved_well_comes_back_the_same(life: Life, said: list[str]) -> None:
    """In a process that has another hash seed; progress is told, and the store is only read."""
    life.run(FINE)
    check(life)
    snapshots = written(life)

    checked = check(life, said)

    assert {v.name: v.outcome for v in checked.verdicts} == dict.fromkeys(life.store.snapshots()[0].names, SAME)
    assert checked.good
    assert checked.processes == 1
    assert any("loading" in words for words in said)
    new = {path for path, _ in written(life)} - {path for path, _ in snapshots}
    assert [path.parent.name for path in new] == ["snapshots"]
    assert {one for one in snapshots if one[0].parent.name != "index"} <= set(written(life))  # a save adds to it


def test_what_is_lossy_is_found_with_its_place(life: Life) -> None:
    life.run(FINE + LOSSY)
    try:
        found = by_name(check(life))
    finally:
        life.run("sys.modules.pop('fleeting')")

    bad = {name: (v.outcome, v.where, v.why) for name, v in found.items() if v.outcome != SAME}
    assert bad.keys() == {"drops", "rounds", "other", "raises", "forgets", "fleeting", "held"}
    assert bad["drops"] == (DIFFERS, "drops.cache", "lost")
    assert bad["rounds"] == (DIFFERS, "rounds['deep'][0].value", "float with another value")
    assert bad["other"] == (DIFFERS, "other", "Other comes back as list of 0")
    assert bad["raises"] == (FAILED, "", "ValueError: not today")
    assert bad["forgets"] == (DIFFERS, "forgets.again", "only there once loaded")
    assert bad["held"] == (FAILED, "", "ModuleNotFoundError: No module named 'fleeting'")
    assert bad["fleeting"] == (FAILED, "", "import fleeting failed: No module named 'fleeting'")


@pytest.mark.slow
def test_what_kills_or_hangs_costs_itself_only(life: Life, capfd: pytest.CaptureFixture[str]) -> None:
    """The rest is checked in another process, and nothing of it is heard."""
    life.run(KILLERS)

    checked = check(life, timeout_seconds=1.0)

    found = by_name(checked)
    assert {name: v.outcome for name, v in found.items() if v.outcome != SAME} == dict.fromkeys(
        ("exits", "crashes", "hangs"), FAILED
    )
    assert found["exits"].why == "the fresh process ended with exit status 7 while it was loaded"
    assert found["crashes"].why == "the fresh process died of SIGSEGV while it was loaded"
    assert found["hangs"].why == "the fresh process did not end in 1 s while it was loaded"
    assert checked.processes == 4
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_there_is_an_end_to_what_dies(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "MOST_PROCESSES", 2)
    life.run(KILLERS.replace("hangs, ", "").replace("Hangs(), ", "") + "also = Exits()")

    outcomes = [v.outcome for v in check(life).verdicts]

    assert outcomes.count(FAILED) == 2
    assert outcomes.count(UNCHECKED) >= 1


def test_ctrl_c_ends_the_process_and_keeps_what_is_known(life: Life, tmp_path: Path) -> None:
    life.run(f"""
class Waits:
    def __init__(self): self.a = 1
    def __setstate__(self, state):
        import os, pathlib, time
        pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(os.getpid())); time.sleep(600)
a_first, waits = [1], Waits()
""")

    def press() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    found = by_name(check(life))
    presser.join()

    assert found["waits"].outcome == UNCHECKED
    assert found["waits"].why == "it was interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_snapshot_without_room_is_not_loaded(life: Life) -> None:
    """Two copies of everything could end the kernel that the check is to protect."""
    life.run(FINE)

    found = check(life, room_bytes=10)

    assert {v.outcome for v in found.verdicts} == {UNCHECKED}
    assert "a second process would need" in found.verdicts[0].why
    assert found.processes == 0


def test_what_does_not_show_what_it_holds_is_said(life: Life) -> None:
    """Code in another language that pickles: loaded, but nobody can compare it."""
    life.run("""
import _thread, copyreg
class Odd:
    def __init__(self): self.local = _thread._local()
    def __reduce__(self): return Odd, ()
odd = Odd()
""")

    found = by_name(check(life))["odd"]

    assert found.outcome == INCOMPARABLE
    assert found.why.startswith("odd.local: ")


def test_a_process_that_cannot_start_is_told(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run(FINE)
    monkeypatch.setattr(supervising.sys, "executable", "/bin/false")

    found = check(life)

    assert {v.outcome for v in found.verdicts} == {UNCHECKED}
    assert "ended with exit status 1" in found.verdicts[0].why


def test_the_key_stands_on_no_command_line(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(supervising.subprocess, "Popen", lambda *a, **k: started.append((a, k)) or popen(*a, **k))
    life.run("x = [1]")

    assert check(life).good

    ((arguments, keywords),) = started
    assert arguments[0][1:] == ["-m", "ipyrescue.checking"]
    assert life.store.key.secret.hex() not in str(keywords["env"])
