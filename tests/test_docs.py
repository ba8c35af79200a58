"""What the documentation says is run, and compared where it does not depend on the moment.

A block of a document is run by its language: `ipython` is a session, whose outputs must be true, `python` is one more
cell of it, `console` is a terminal. An `ipython` block that begins with `In [1]` is a new kernel; the old one is dead.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernels import Kernel, kernels

from ipyrescue.cli.exits import MEANINGS
from ipyrescue.kernel import arguments
from ipyrescue.settings import KNOBS

ROOT = Path(__file__).parent.parent
README, ARCHITECTURE, FORMAT, CHANGELOG = (
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "FORMAT.md", "CHANGELOG.md")
)
DOCUMENTS = [README, ARCHITECTURE, FORMAT, CHANGELOG]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "docker" / "README.md"]
MANUALS = {
    "checkpoint_vars": arguments.CHECKPOINT_HELP,
    "restore_vars": arguments.RESTORE_HELP,
    "snapshots": arguments.SNAPSHOTS_HELP,
}

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOMENTARY = [
    (re.compile(r"\b[0-9a-f]{16}\b|\b(?=\w*\d)[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\b(\d{4}-\d\d-\d\d[ T])?\d\d:\d\d(:\d\d)?\b"), "CLOCK"),
    (re.compile(r"\d[\d.,]* (B|kB|MB|GB|TB)\b"), "SIZE"),
    (re.compile(r"just now|\d[\d.]* (ms|s|min|h|d)( \d+ (s|min|h))? ago"), "AGE"),
    (re.compile(r"(?<!every )\b\d[\d.]* (ms|s|min|h)( \d+ (s|min))?\b"), "DURATION"),
    (re.compile(r"Out\[\d+\]:"), ""),
    (re.compile(r"\s+"), " "),
]


@dataclass(frozen=True)
class Step:
    """Something that is typed, and what the document says comes back."""

    typed: str
    answer: str


class Reader:
    """Somebody who follows a document in one folder, typing all that it shows."""

    def __init__(self, folder: Path, start) -> None:
        self.folder, self.start, self.kernel = folder, start, None

    def follow(self, language: str, text: str) -> Iterator[tuple[str, str, str]]:
        """Type what a block shows; yield what was typed, what was promised and what came."""
        if language == "ipython" and text.startswith("In [1]"):
            self.kernel = self.start()
        run = {"ipython": self.in_a_cell, "python": self.in_a_cell, "console": self.in_a_terminal}[language]
        for step in steps(language, text):
            yield step.typed, stable(step.answer), stable(run(step.typed))

    def in_a_cell(self, cell: str) -> str:
        if "os.kill(" in cell:
            return self.die(self.kernel, cell)
        output = self.kernel.try_run(cell)
        assert not output.error, f"{cell}\n{output.error}"
        return output.text

    def die(self, kernel: Kernel, cell: str) -> str:
        kernel.begin(cell)
        kernel.manager.provisioner.process.wait()
        return ""

    def in_a_terminal(self, command: str) -> str:
        if not command.startswith(("ipyrescue ", "make help")):
            return ""
        folder = ROOT if command.startswith("make") else self.folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            command.split(), cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
        return ended.stdout


@pytest.fixture
def reader(tmp_path) -> Iterator[Reader]:
    with kernels(tmp_path) as start:
        yield Reader(tmp_path, start)


@pytest.mark.slow
def test_readme_is_true(reader):
    """Its sessions end as they say, its examples run, its commands exist."""
    for language, text in blocks(README):
        for typed, promised, came in reader.follow(language, text):
            assert not promised or promised in came, typed


@pytest.mark.slow
@pytest.mark.parametrize("magic", MANUALS)
def test_every_manual_has_an_example_that_runs(magic, reader):
    """`%checkpoint_vars?` shows a session that works when it is typed."""
    example = MANUALS[magic].partition("Example:")[2]
    cells = [step.typed for step in steps("ipython", example)]
    reader.kernel = reader.start()

    for cell in cells:
        assert "UsageError" not in reader.in_a_cell(cell), cell

    assert any(cell.startswith(f"%{magic}") for cell in cells)
    assert stable("Example: In [1]") in stable(
        reader.in_a_cell(f"print(get_ipython().find_line_magic('{magic}').__doc__)")
    )


@pytest.mark.parametrize("grammar", [arguments._CHECKPOINT, arguments._RESTORE, arguments._SNAPSHOTS])
def test_readme_has_every_option_of_a_magic(grammar):
    text = README.read_text(encoding="utf-8")

    missing = [option.name for option in grammar.options if option.name.replace("-", "_") not in text.replace("-", "_")]

    assert missing == []


def test_readme_has_every_setting_and_every_exit_code():
    text = README.read_text(encoding="utf-8")

    assert [knob.variable for knob in KNOBS if knob.variable not in text] == []
    assert [code for code in MEANINGS if not re.search(rf"\b{int(code)}\b", text)] == []


def test_readme_has_every_verb_of_the_command():
    text = README.read_text(encoding="utf-8")
    ended = subprocess.run([sys.executable, "-m", "ipyrescue", "--help"], capture_output=True, text=True, check=True)
    verbs = re.findall(r"^  (\w+) {2,}", ended.stdout.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE)

    assert verbs
    assert [verb for verb in verbs if f"ipyrescue {verb}" not in text] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_document_names_only_what_exists(document):
    """Links, files of the package and targets of make."""
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (document.parent / link).exists()]
    files = re.findall(r"`((?:ipyrescue|tests|demo|tools|notebooks)/(?:[\w/]*\.\w+|[\w/]*/)?)`", text)
    unknown = [target for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", text) if target not in targets]

    assert (links, [file for file in files if not (ROOT / file).exists()], unknown) == ([], [], [])


def test_architecture_has_every_unit_and_every_folder_of_the_package():
    """Who reads it has seen every top-level module and every file of the folders that hold the ten stages."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    package = ROOT / "ipyrescue"
    units = {path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    files = {
        path.name for folder in ("store", "pickling", "capture", "kernel") for path in (package / folder).glob("*.py")
    }

    assert sorted(name for name in units | files - {"__init__.py"} if name.removesuffix(".py") not in text) == []


def test_changelog_knows_this_version():
    version = re.search(r'^version = "(.*?)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]

    assert f"## {version}" in CHANGELOG.read_text(encoding="utf-8").replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    ("promised", "came"),
    [
        ("Saved 2 variables, 1.8 MB (0 B new), paused 31 ms.", "Saved 2 variables, 41 kB (3 B new), paused 0.2 s."),
        ("snapshot bcad13ec, made 8 s ago", "snapshot 0d5c2b1a,\n   made just now"),
        ("Out[3]: (100, True)", "(100, True)"),
    ],
)
def test_what_depends_on_the_moment_is_not_compared(promised, came):
    assert stable(promised) == stable(came)


@pytest.mark.parametrize(
    ("promised", "came"),
    [
        ("Saved 2 variables", "Saved 3 variables"),
        ("at most every 5 min", "at most every 2 s"),
        ("(100, True)", "(99, True)"),
    ],
)
def test_what_does_not_depend_on_the_moment_is_compared(promised, came):
    assert stable(promised) != stable(came)


def blocks(document: Path) -> list[tuple[str, str]]:
    """The blocks of a document that are run, in order."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in ("ipython", "python", "console")]


def steps(language: str, text: str) -> list[Step]:
    """Take a block apart: a prompt opens a step, lines without a prompt are the answer."""
    if language == "python":
        return [Step(text, "")]
    opening, continued = (r"\$ ", r"> ") if language == "console" else (r" *In \[\d+\]: ", r" +\.\.\.: ?")
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.match(opening, line):
            found.append([re.sub(f"^{opening}", "", line), ""])
        elif found and re.match(continued, line):
            found[-1][0] += "\n" + re.sub(f"^{continued}", "", line)
        elif found:
            found[-1][1] += line + "\n"
    return [Step(*pair) for pair in found]


def stable(text: str) -> str:
    """What of an output is the same at each run: not the ids, moments, durations and sizes."""
    for pattern, word in MOMENTARY:
        text = pattern.sub(word, text)
    return text.strip()
