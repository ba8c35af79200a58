"""Pin the newest versions of all that a checkout needs but torch: one file in requirements/ per Python.

    python tools/lock.py 3.10 3.11 3.12 3.13

Torch is left out because its source differs from machine to machine (see tools/install.py), although some of
what is pinned requires it; what torch itself requires is in. Neither addresses nor paths get into the files.

They are resolved for Linux on x86_64, and used on other machines too: what has no wheels for these keeps its marker.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("test", "lint", "browser", "bench", "build", "beside-torch")
UV = "uv>=0.9,<1"
NO_TORCH = "torch; sys_platform == 'never'"
NOT_EVERYWHERE = {"atheris": "sys_platform == 'linux' and platform_machine == 'x86_64'"}


def main(versions: list[str]) -> None:
    """Write a lock for each of the Python *versions*."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-qq", UV], check=True)
    with NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write(NO_TORCH)
        overrides.flush()
        for version in versions:
            lock = f"requirements/py{version.replace('.', '')}.txt"
            subprocess.run([*compile_command(version, lock), "--override", overrides.name], cwd=ROOT, check=True)
            (ROOT / lock).write_text(marked((ROOT / lock).read_text()))
            print(lock)


def compile_command(version: str, lock: str) -> list[str]:
    """Spell the command that resolves pyproject.toml for one Python *version* on Linux."""
    groups = [word for group in GROUPS for word in ("--group", group)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *groups]
    command += ["--python-version", version, "--python-platform", "linux", "--only-binary", ":all:", "--upgrade"]
    return [*command, "--quiet", "--no-config", "--custom-compile-command", "make lock", "--output-file", lock]


def marked(lock: str) -> str:
    """Put the markers back into the text of a lock, which uv leaves out once they hold."""
    for name, marker in NOT_EVERYWHERE.items():
        lock = re.sub(rf"^({name}==\S+)$", rf"\1 ; {marker}", lock, flags=re.MULTILINE)
    return lock


if __name__ == "__main__":
    main(sys.argv[1:])
