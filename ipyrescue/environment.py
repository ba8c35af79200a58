"""The fingerprint of a session, and the difference of two explained with the command that mends it.

Turns `sys.modules` into a small table of texts that a manifest can hold. Never imports a library, never initialises
CUDA: who did not load torch has no torch to differ in.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Collection, Mapping

DISTRIBUTIONS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "torchaudio": "torchaudio",
    "lightning": "lightning",
    "pytorch_lightning": "pytorch-lightning",
    "transformers": "transformers",
    "datasets": "datasets",
    "accelerate": "accelerate",
    "numpy": "numpy",
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "statsmodels": "statsmodels",
    "jax": "jax",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "sympy": "sympy",
    "networkx": "networkx",
    "xarray": "xarray",
    "PIL": "pillow",
    "dill": "dill",
    "cloudpickle": "cloudpickle",
}
"""Libraries whose objects end up in snapshots: the module's name and the name that pip knows."""

MISSING = "none"
"""The version of a library that is not installed, or of what a build does not have."""

WORKING_DIRECTORY = "working directory"
"""The key under which a snapshot keeps where its kernel was; a restore tells of it and does not go there."""


def working_directory() -> str:
    """Where this process is, or a word for it when that folder is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "(deleted)"


_MODULES = {distribution: module for module, distribution in DISTRIBUTIONS.items()}
_UNKNOWN = "unknown"


def fingerprint(expected: Collection[str] = ()) -> dict[str, str]:
    """Describe this session: Python, platform, ipyrescue, and the version of every library in use.

    *expected* are keys of an older fingerprint: a library of those that is not loaded is looked up on disk, so that a
    fresh kernel can be compared; if it is not installed either, its version is `MISSING`.
    """
    found = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "ipyrescue": _installed("ipyrescue", otherwise=_UNKNOWN),
    }
    for module, distribution in DISTRIBUTIONS.items():
        version = _loaded(module)
        if version is None and distribution in expected:
            version = _installed(distribution, otherwise=MISSING)
        if version is not None:
            found[distribution] = version
    return found | _accelerator()


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say in one sentence each what has changed since *then*, with the command that mends it where there is one.

    What *now* does not mention is unknown, not different.
    """
    told = []
    for key, old in then.items():
        new = now.get(key)
        if new is not None and old != new and _UNKNOWN not in (old, new) and _tells(key, old, new):
            told.append(_sentence(key, old, new))
    return told


def _loaded(module: str) -> str | None:
    """The version of a module that is already imported; a module in the middle of its import has none yet."""
    try:
        version = getattr(sys.modules.get(module), "__version__", None)
    except Exception:  # noqa: BLE001 - A module may have a `__getattr__` of its own, which may raise anything.
        return None
    return str(version) if isinstance(version, str) else None


def _installed(distribution: str, *, otherwise: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def _accelerator() -> dict[str, str]:
    """What torch was built for and, only where CUDA already runs in this process, the names of the devices."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if torch is None or cuda is None or not hasattr(torch, "version"):
        return {}
    found = {"cuda": str(torch.version.cuda or MISSING)}
    if cuda.is_initialized():
        found["cuda devices"] = ", ".join(cuda.get_device_name(i) for i in range(cuda.device_count())) or MISSING
    return found


def _numbers(version: str) -> tuple[str, ...]:
    """Major, minor and patch; more digits than that are not worth telling."""
    match = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    return tuple(part or "0" for part in match.groups()) if match else (version,)


def _tells(key: str, old: str, new: str) -> bool:
    if key not in _MODULES and key != "python":
        return True
    # A wheel from PyPI says `2.13.0` on disk and `2.13.0+cu130` once loaded: no difference.
    old_build, new_build = old.partition("+")[2], new.partition("+")[2]
    other_build = bool(old_build and new_build and old_build != new_build)
    return MISSING in (old, new) or _numbers(old) != _numbers(new) or other_build


def _sentence(key: str, old: str, new: str) -> str:
    told = f"{key} {old} -> {'not installed' if new == MISSING and key in _MODULES else new}"
    if key not in _MODULES or old == MISSING:
        return told
    version, _, build = old.partition("+")
    which = f" (the {build} build)" if build else ""
    return f"{told}: pip install {key}=={version}{which}"
