"""A namespace becomes a snapshot: which names, how many bytes, and what is refused."""

from __future__ import annotations

import linecache
import sys
from typing import TYPE_CHECKING

import pytest

from ipyrescue.cells import Cell, History
from ipyrescue.errors import CheckpointError
from ipyrescue.manifest import Import, Settings
from ipyrescue.pickling.decode import import_modules
from ipyrescue.selection import Occasion, Origin, select

if TYPE_CHECKING:
    from pathlib import Path

    from namespaces import Life


def test_the_whole_namespace_is_saved_but_for_ipythons_own(life: Life) -> None:
    """Every name that the user made is in it, private ones too; `_`, `In`, `_i3` and dunders are not."""
    life.run("x, _mine, In, _i3, _7, __secret__ = 1, 2, [], 'text', 3, 4")

    snapshot = life.checkpoint()

    assert {v.name for v in snapshot.variables} == {"x", "_mine"}


def test_modules_become_imports(life: Life) -> None:
    """A module is an import line, not bytes; `from math import pi` is a value."""
    life.run("import numpy as np\nfrom math import pi\nimport os.path as p")

    snapshot = life.checkpoint()

    assert {(i.name, i.module) for i in snapshot.imports} == {("np", "numpy"), ("p", "posixpath")}
    assert [v.name for v in snapshot.variables] == ["pi"]


def test_the_submodules_that_cells_imported_come_back_with_their_package(life: Life) -> None:
    """`import a.b` binds `a` alone. What no cell imported, or what is not there any more, is left out."""
    life.run("import xml.dom.minidom, xml.sax as sax, os.path; xml.dom.pulldom = None")
    import xml.sax.saxutils  # noqa: F401 - loaded, but by no cell

    text = "import xml.dom.minidom, xml.gone\nfrom xml.dom import pulldom\nimport json.decoder"
    history = History()
    history.add([Cell(1, text)])
    chosen = select(life.names, 1, Origin("n", "i" * 16, "h", history=history.to_bytes()), Occasion(), Settings())

    assert {i.name: i.submodules for i in chosen.imports} == {
        "xml": ("xml.dom", "xml.dom.minidom"), "sax": (), "os": (),
    }  # fmt: skip
    assert next(str(i) for i in chosen.imports) == "import xml, xml.dom, xml.dom.minidom"


def test_a_submodule_that_is_gone_costs_itself() -> None:
    """Its package is bound, and what is missing is told."""
    gone, whole = import_modules([Import("xml", "xml", ("xml.gone", "xml.dom")), Import("os", "os", ("os.path",))])

    assert gone[0] == "xml"
    assert gone[1] is sys.modules["xml"]
    assert gone[2] == "import xml.gone failed: No module named 'xml.gone'"
    assert whole[2] is None


def test_a_file_that_was_edited_costs_no_snapshot(life: Life, tmp_path: Path) -> None:
    """A function of a module whose file is another by now: its source is not told, whatever the tokenizer says."""
    (tmp_path / "edited_since.py").write_text("import os\n\n\ndef f():\n    return 1\n")
    life.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom edited_since import f\nsys.path.pop(0); x = [1]")
    (tmp_path / "edited_since.py").write_text('"""My module.\n\nIt does\nthings, many\nof them.\n"""\nimport os\n')
    linecache.checkcache()

    snapshot = life.checkpoint()

    assert {v.name: v.source for v in snapshot.variables} == {"f": None, "x": None}


def test_a_key_that_is_no_name_is_left_out(life: Life) -> None:
    """`globals()[5] = 1` is no variable: it is told, and costs nothing else."""
    life.run("""
class Rude:
    def __repr__(self): raise RuntimeError("no")
    def __eq__(self, other): raise RuntimeError("no")
    __hash__ = object.__hash__
globals()[5] = 1
globals()[Rude()] = 2
x = [1]
del Rude
""")

    snapshot = life.checkpoint()

    assert [v.name for v in snapshot.variables] == ["x"]
    assert sorted(map(str, snapshot.skipped)) == [
        "a key of type Rude (not a text, so no variable)", "a key of type int (not a text, so no variable)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "assignment",
    ["api_key = 'abc'", "x = 'sk-' + 'a' * 30", "db = 'postgres://me:pass@host/db'", "HF_TOKEN = 'anything'"],
)
def test_secrets_are_left_out_by_name_and_by_value(life: Life, assignment: str) -> None:
    """What looks like a key or a password is Skipped, and the reason says how to save it after all."""
    life.run(assignment)

    snapshot = life.checkpoint()

    assert not snapshot.variables
    assert "--allow" in snapshot.skipped[0].reason
    assert life.checkpoint(allow=(snapshot.skipped[0].name,)).variables


def test_a_pattern_does_not_mean_a_secret_but_its_name_does(life: Life) -> None:
    """`%checkpoint_vars a*` is no word for a password; who types the whole name wants that very one."""
    life.run("api_key, alpha = 'abc', 1")

    by_pattern, by_name = life.checkpoint(tagged=("a*",)), life.checkpoint(tagged=("api_key",))

    assert [s.name for s in by_pattern.skipped] == ["api_key"]
    assert {v.name for v in by_pattern.variables} == {"alpha"}
    assert {v.name for v in by_name.variables} == {"alpha", "api_key"}


def test_ordinary_names_are_no_secrets(life: Life) -> None:
    """`tokenizer`, `tokens` and `keyword` are no secrets, and neither are numbers called `token`."""
    life.run("tokenizer, tokens, keyword, max_token, url = 'bpe', ['a'], 'k', 5, 'https://example.org/a'")

    assert not life.checkpoint().skipped


def test_excluded_names_are_skipped_and_only_means_only(life: Life) -> None:
    """-x takes patterns; --only keeps nothing but the tagged names."""
    life.run("a, b, tmp_c, tmp_d = 1, 2, 3, 4")

    excluded, only = life.checkpoint(exclude=("tmp_*",)), life.checkpoint(tagged=("a", "tmp_c"), only=True)

    assert {s.name for s in excluded.skipped} == {"tmp_c", "tmp_d"}
    assert {v.name for v in only.variables} == {"a", "tmp_c"}


def test_a_tagged_name_that_cannot_be_saved_stops_a_command(life: Life) -> None:
    """What the user named must be in the snapshot; otherwise there is none, and the reason is told."""
    life.run("gen = (i for i in range(3))\nx = 1")

    with pytest.raises(CheckpointError, match="gen"):
        life.checkpoint(tagged=("gen",))
    with pytest.raises(CheckpointError, match="modle"):
        life.checkpoint(tagged=("modle",))
    assert not life.store.snapshots()


def test_a_tagged_name_that_vanished_does_not_stop_a_scheduled_snapshot(life: Life) -> None:
    """On schedule the rest is saved and the loss is in the manifest."""
    life.run("x = 1")

    snapshot = life.checkpoint(Occasion(trigger="every"), tagged=("gone",))

    assert [v.name for v in snapshot.variables] == ["x"]
    assert [s.name for s in snapshot.skipped] == ["gone"]


def test_what_did_not_change_is_not_written_again(life: Life) -> None:
    """A second snapshot after a small change writes the small change."""
    life.run("import numpy as np\nbig = np.random.default_rng(0).random(1_000_000)\nsmall = 1")
    first = life.checkpoint()
    life.run("small = 2")

    second = life.checkpoint()

    assert first.new_bytes > 8_000_000
    assert second.new_bytes < 100_000


def test_one_changed_column_rewrites_that_column(life: Life) -> None:
    """A frame's columns are blobs of their own."""
    life.run("""
import numpy as np, pandas as pd
frame = pd.DataFrame({c: np.random.default_rng(i).random(300_000) for i, c in enumerate("abcd")})
model = np.random.default_rng(9).random(300_000)
""")
    life.checkpoint()
    life.run("frame.loc[5, 'b'] = 0.0")

    second = life.checkpoint()

    assert second.new_bytes < 4 * 300_000 * 8 + 200_000


def test_what_an_object_says_when_it_refuses_is_kept_without_credentials(life: Life) -> None:
    said = "password='hunter2' was refused"
    life.run(f"class Raises:\n    def __reduce__(self): raise ValueError({said!r})\nraises = Raises()")

    (skipped,) = life.checkpoint().skipped

    assert skipped.reason.endswith(": what it said may show a secret")
