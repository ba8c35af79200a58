"""The fingerprint of a session, and the difference of two explained with what mends it.

Turns `sys.modules` and the versions on disk into a small table of texts that a manifest can hold. Never imports a
library, never initialises CUDA: who did not load torch has no torch to differ in. What only a kernel knows (its magics,
its notebook's repository) is added by the kernel under the keys that stand here.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from ipyrescue import gpus

MISSING = "none"
"""The version of a library that is not installed, or of what a build does not have."""

PYTHON, IMPLEMENTATION, PLATFORM, CONTAINER = "python", "implementation", "platform", "container"
CUDA, CUDNN, GPUS, DRIVER = "cuda", "cudnn", "cuda devices", "NVIDIA driver"
WORKING_DIRECTORY = "working directory"
"""Where a kernel was; a restore tells of it and does not go there."""
COMMIT, CHANGES = "git commit", "git changes"
"""What the notebook's folder was checked out from, and whether tracked files other than notebooks were edited since."""
AUTORELOAD, BACKEND = "autoreload", "matplotlib backend"

_FACTS = (
    PYTHON, IMPLEMENTATION, PLATFORM, CONTAINER, CUDA, CUDNN, GPUS, DRIVER, WORKING_DIRECTORY, COMMIT, CHANGES,
    AUTORELOAD, BACKEND,
)  # fmt: skip
"""The keys that are no distribution."""

_ALWAYS = ("ipyrescue", "torch", "numpy", "pandas")


@dataclass(frozen=True)
class Difference:
    """One thing that was another when the snapshot was made: *then* and *now*, and what makes it as it was.

    *requirement* is what pip is to install; *advice* is what to type or to know.
    """

    key: str
    then: str
    now: str
    requirement: str = ""
    advice: str = ""


def fingerprint(packages: Iterable[str] = ()) -> dict[str, str]:
    """Describe this session: Python, machine, torch, NumPy, pandas, and the distribution of each of *packages*.

    *packages* are the names of top-level modules.
    """
    found = {**process(), WORKING_DIRECTORY: working_directory()}
    for package in dict.fromkeys((*_ALWAYS, *sorted(packages))):
        distribution, version = _distribution(package) if package in sys.modules else (None, None)
        if distribution and version:
            found[distribution] = version
    return {**found, **_torch()}


def counterpart(then: Mapping[str, str]) -> dict[str, str]:
    """Describe this session by what an older fingerprint describes; a library need not be loaded to have a version."""
    found = {**process(), WORKING_DIRECTORY: working_directory()}
    for key in then.keys() - set(_FACTS):
        found[key] = _installed(key) or MISSING
    found.update(_torch())
    if found.get("ipyrescue") == MISSING:  # it runs, from a folder that no installation knows
        del found["ipyrescue"]
    return found


def python(found: Mapping[str, str]) -> str | None:
    """The Python of a fingerprint up to its minor version, which is all that its bytecode runs on: `Python 3.11`."""
    if PYTHON not in found:
        return None
    implementation = found.get(IMPLEMENTATION, "CPython").replace("CPython", "Python")
    return f"{implementation} {'.'.join(found[PYTHON].split('.')[:2])}"


def working_directory() -> str:
    """Where this process is, or a word for it when that folder is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "(deleted)"


@cache
def process() -> Mapping[str, str]:
    """What does not change while a process runs."""
    found = {
        PYTHON: platform.python_version(),
        IMPLEMENTATION: platform.python_implementation(),
        PLATFORM: f"{platform.system()} {platform.machine()}",
        CONTAINER: gpus.container(),
        DRIVER: gpus.driver_version(),
    }
    return {key: value for key, value in found.items() if value}


def _torch() -> dict[str, str]:
    """The torch that is loaded, what it was built for and, only where CUDA already runs here, what it runs on.

    Unlike the version on disk, that of the module always says the build: `2.13.0+cu130`.
    """
    torch: Any = sys.modules.get("torch")
    found = {}
    with suppress(
        Exception
    ):  # in the middle of its import, or on a device that is broken by now, it may raise anything
        found["torch"] = str(torch.__version__)
        found[CUDA] = str(torch.version.cuda or MISSING)
        notice_devices()
        found.update(_on_devices)
    return {key: value for key, value in found.items() if value}


_on_devices: dict[str, str] = {}
"""What CUDA runs on in this process, as far as it could be asked."""


def notice_devices() -> None:
    """Remember what CUDA runs on, if it does: a forked child cannot ask. Never raises."""
    torch: Any = sys.modules.get("torch")
    with suppress(Exception):  # as above
        if not _on_devices and torch.cuda.is_initialized():
            names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
            _on_devices.update({CUDNN: _dotted(torch.backends.cudnn.version()), GPUS: names})


def _dotted(cudnn: int | None) -> str:
    """Spell out the version of cuDNN, which tells it as one number: 91002 is 9.10.2, 8902 is 8.9.2."""
    if not cudnn:
        return MISSING
    major = 10_000 if cudnn >= 10_000 else 1_000
    return f"{cudnn // major}.{cudnn % major // 100}.{cudnn % 100}"


# --- distributions ----------------------------------------------------------------------------------------------


@cache
def _distribution(package: str) -> tuple[str | None, str | None]:
    """The distribution that brought a loaded top-level module, and its version; asked once for each module.

    Most are named like their module. For the others the lists of files are read, which costs tens of milliseconds.
    """
    if package in sys.stdlib_module_names or package.startswith("__"):
        return None, None
    version = _installed(package)
    if version:
        return package, version
    for found in importlib.metadata.distributions():
        files = f"\n{found.read_text('RECORD') or ''}"
        if f"\n{package}/" in files or f"\n{package}.py," in files:
            return found.metadata["Name"], found.version
    return None, None


def _installed(distribution: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return importlib.metadata.version(distribution)
    return None


def in_order(found: Mapping[str, str]) -> list[tuple[str, str]]:
    """A fingerprint for a reader: Python and the machine, then the distributions, then the rest."""
    first = [key for key in (PYTHON, IMPLEMENTATION, PLATFORM, CONTAINER) if key in found]
    last = [key for key in _FACTS if key in found and key not in first]
    distributions = sorted(found.keys() - {*first, *last})
    return [(key, found[key]) for key in (*first, *distributions, *last)]


# --- the difference of two --------------------------------------------------------------------------------------


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[Difference, ...]:
    """What matters of what has changed since *then*, in the order of *then*.

    What *now* does not mention is unknown, not different. Patch versions do not matter, nor does what torch was built
    for where no GPU was in use.
    """
    changed = [key for key in (*_FACTS, *then) if key in then and now.get(key, then[key]) != then[key]]
    found = [_difference(key, then, now) for key in dict.fromkeys(changed)]
    told = [difference for difference in found if difference is not None]
    is_built_otherwise = any(d.key == "torch" and "+" in d.then for d in told)
    return tuple(d for d in told if d.key != CUDA or not is_built_otherwise)


def requirements(found: Sequence[Difference]) -> str:
    """The one line that installs every version that was another then; empty where there is none."""
    wanted = [difference.requirement for difference in found if difference.requirement]
    return f"%pip install {' '.join(wanted)}" if wanted else ""


def _difference(key: str, then: Mapping[str, str], now: Mapping[str, str]) -> Difference | None:
    old, new = then[key], now[key]
    if key in _FACTS:
        advice = _ADVICE[key](then, now) if key in _ADVICE else None
        return Difference(key, old, new, advice=advice) if advice is not None else None
    version, _, build = old.partition("+")
    is_rebuilt = bool(build) and GPUS in then and build != new.partition("+")[2] != ""
    if MISSING != new and _minor(old) == _minor(new) and not is_rebuilt:
        return None
    requirement = "" if old == MISSING else f"{key}=={version}"
    advice = f"the {build} build" if build and is_rebuilt else ""
    return Difference(key, old, "not installed" if new == MISSING else new, requirement, advice)


def _minor(version: str) -> tuple[str, str] | str:
    """Major and minor version; more digits than that do not matter."""
    match = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (match[1], match[2] or "0") if match else version


def _python_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    wanted = python(then)
    if wanted == python(now):
        return None
    return f"run the cells of functions and classes again, or use a kernel of {wanted}"


def _cuda_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    return f"install the torch that is built for CUDA {then[CUDA]}" if GPUS in then else None


def _numbers_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    return "the last bits of results may differ"


def _cudnn_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    return _numbers_advice(then, now) if _minor(then[CUDNN]) != _minor(now[CUDNN]) else None


def _changes_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    same = then.get(COMMIT) == now.get(COMMIT)
    return "what was edited then is not here: git stash list" if same and now[CHANGES] == MISSING else None


def _backend_advice(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    name = then[BACKEND]
    return f"%matplotlib {name}" if "://" not in name else f"matplotlib.use({name!r})"


_ADVICE: Mapping[str, Callable[[Mapping[str, str], Mapping[str, str]], str | None]] = {
    PYTHON: _python_advice,
    IMPLEMENTATION: _python_advice,
    PLATFORM: _numbers_advice,
    CUDA: _cuda_advice,
    CUDNN: _cudnn_advice,
    GPUS: _numbers_advice,
    COMMIT: lambda then, now: f"!git diff --stat {then[COMMIT][:10]}",
    CHANGES: _changes_advice,
    AUTORELOAD: lambda then, now: f"%load_ext autoreload, then %autoreload {then[AUTORELOAD]}",
    BACKEND: _backend_advice,
}
"""What to type or to know for each fact that matters; what is not here is kept to be read, and differs in silence."""
