"""Make the development environment: what requirements/ pins, torch, and this package, in a virtual environment.

    create -> plan -> refuse CUDA -> install the lock, torch, the package -> stamp

The stamp is written last. While it matches there is nothing to do; when the lock changed, the environment is
updated; when its making was interrupted, it is made anew. Run by `make`, on nothing but the standard library.

The package is installed editable: its Python runs from the checkout. What Jupyter looks for in the environment's
etc/ and share/ pip copies there, from an editable wheel too; when one of those files changes, that is done again.

VENV         where to make it (.venv)
TORCH_ARGS   more arguments for pip when it installs torch, such as --index-url
TORCH_BUILD  "any" accepts the CUDA build of torch; else that is refused
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
CUDA_PACKAGES = ("nvidia-", "cuda-", "triton", "pytorch-triton")
UNFINISHED = "unfinished"

UNSUPPORTED = """\
ipyrescue is developed on Python {supported}, and {executable} is Python {version}.
Name another one:  make PYTHON=python3.12 ..."""

NOT_OURS = """\
{environment} exists, and was not made by this script, which leaves it alone.
Choose another place:  make VENV=.venv-ipyrescue ..."""

NO_PIP = """\
Python could not make {environment}, most likely because its pip is packaged apart.
On Debian and Ubuntu:  apt-get install python3-venv"""

NO_TORCH = """\
pip does not find {torch} for this Python and machine; it says why above.
Another source of it can be named:  make venv TORCH_ARGS="--find-links DIRECTORY" """

CUDA = """\
Stopped before anything was installed: pip would take the CUDA build of {torch}, several GB with its
{count} packages ({names}, ...), and neither the demo nor the tests need it. Type one of

  make venv TORCH_ARGS="--index-url ADDRESS"    the CPU build. The selector on pytorch.org (Linux, Pip, CPU)
                                                shows a command with the ADDRESS
  make venv TORCH_BUILD=any                     the CUDA build all the same

once; `make demo` and `make test` then use what is there."""


def main() -> None:
    """Bring the environment up to date, or say why not."""
    lock = lock_for(sys.version_info[:2])
    environment = ROOT / os.environ.get("VENV", ".venv")
    stamp = environment / "made-by-ipyrescue"
    made_with = f"{sys.version.split()[0]} {sys.base_prefix} {environment}"
    made_from = digest(lock, ROOT / "pyproject.toml", Path(__file__), *copied())
    if read(stamp) == [made_with, made_from]:
        return

    python = environment / "bin" / "python"
    torch = [TORCH, *shlex.split(os.environ.get("TORCH_ARGS", ""))]
    if read(stamp)[:1] != [made_with]:
        create(environment, stamp)
    if os.environ.get("TORCH_BUILD") != "any":
        refuse_cuda(plan(python, torch))
    stamp.write_text(UNFINISHED)
    install(python, f"what {lock.name} pins", ["--no-deps", "--requirement", str(lock)])  # all but torch is in it
    install(python, TORCH, torch)
    install(python, "ipyrescue", ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    stamp.write_text(f"{made_with}\n{made_from}")
    say(f"Ready: {environment}")


def lock_for(version: "tuple[int, int]") -> Path:
    """Find the pinned requirements of a Python *version*."""
    lock = ROOT / "requirements" / "py{}{}.txt".format(*version)
    if not lock.is_file():
        minors = sorted(int(path.stem[3:]) for path in lock.parent.glob("py3*.txt"))
        supported = f"3.{minors[0]} to 3.{minors[-1]}"
        stop(UNSUPPORTED.format(supported=supported, executable=sys.executable, version="{}.{}".format(*version)))
    return lock


def copied() -> "list[Path]":
    """List what pip copies from the checkout: what pyproject.toml names under shared-data."""
    folders = [ROOT / "jupyter-config", ROOT / "ipyrescue" / "labextension"]
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [ROOT / "labextension" / "install.json", *found]


def digest(*files: Path) -> str:
    """Name the contents of *files* in one word."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def read(stamp: Path) -> "list[str]":
    """Read what an environment was made with, and from; empty where there is none."""
    return stamp.read_text().splitlines() if stamp.is_file() else []


def create(environment: Path, stamp: Path) -> None:
    """Make an empty environment, in place of one that is ours and no use any more."""
    if environment.exists() and not stamp.is_file() and any(environment.iterdir()):
        stop(NOT_OURS.format(environment=environment))
    say(f"Making {environment} with Python {sys.version.split()[0]}")
    shutil.rmtree(environment, ignore_errors=True)
    environment.mkdir(parents=True)
    stamp.write_text(UNFINISHED)  # first of all: an environment without a stamp is somebody else's
    try:
        venv.create(environment, symlinks=True, with_pip=True)
    except subprocess.CalledProcessError:
        stop(NO_PIP.format(environment=environment))


def plan(python: Path, torch: "list[str]") -> "list[str]":
    """Ask pip for the names of all that it would install with torch."""
    command = pip(python, "--dry-run", "--report", "-", *torch)
    asked = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if asked.returncode:
        stop(NO_TORCH.format(torch=TORCH))
    return [step["metadata"]["name"].lower().replace("_", "-") for step in json.loads(asked.stdout)["install"]]


def refuse_cuda(names: "list[str]") -> None:
    """Stop if one of the packages *names* comes with the CUDA build only."""
    cuda = sorted(name for name in names if name.startswith(CUDA_PACKAGES))
    if cuda:
        stop(CUDA.format(torch=TORCH, count=len(cuda), names=", ".join(cuda[:3])))


def install(python: Path, what: str, arguments: "list[str]") -> None:
    """Have pip install something, or stop after its own words."""
    say(f"Installing {what}")
    if subprocess.run(pip(python, *arguments), check=False).returncode:
        stop(f"pip could not install {what}; it says why above. The next run starts over.")


def pip(python: Path, *arguments: str) -> "list[str]":
    """Spell the command; errors only, as pip's warnings are about the machine's settings."""
    return [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]


def say(line: str) -> None:
    """Tell a person what goes on; make's own output stays apart on stdout."""
    print(line, file=sys.stderr, flush=True)


def stop(message: str) -> None:
    """End the program with a *message* that says what to type next."""
    raise SystemExit(f"\n{message}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted. The next run starts over.\n") from None
