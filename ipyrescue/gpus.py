"""Which GPUs this machine shows to a process, and why torch may see none: files and variables into sentences.

Never imports torch and never initialises CUDA: what is here is read from `/proc`, `/dev` and the environment, and
torch is asked only for what it was built for, where it is loaded already.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DRIVER_FILE = "proc/driver/nvidia/version"
_DEVICE_FILES = ("nvidia[0-9]*", "dxg", "kfd", "nvhost-gpu")
"""NVIDIA's own, and how Windows, AMD and Tegra show a GPU."""
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The first driver branch for Linux on which programs of each major version of CUDA run."""
_CONTAINERS = (
    (".dockerenv", "docker"),
    ("run/.containerenv", "podman"),
    (".singularity.d", "apptainer"),
)


@dataclass(frozen=True)
class Facts:
    """What speaks for or against GPUs here. *torch* is its version and empty where it is not loaded.

    *cuda* and *rocm* are what torch was built for; *visible* is `CUDA_VISIBLE_DEVICES`; *driver* is that of NVIDIA;
    *shown*: there is a device file of a GPU; *said* is what torch warned of when it was asked.
    """

    torch: str = ""
    cuda: str | None = None
    rocm: str | None = None
    system: str = "Linux"
    visible: str | None = None
    driver: str | None = None
    shown: bool = True
    container: str | None = None
    said: str = ""


def look(said: str = "", root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Facts:
    """Collect what can be known of this process, with what torch *said*."""
    torch = sys.modules.get("torch")
    built = getattr(torch, "version", None)
    return Facts(
        torch=str(getattr(torch, "__version__", "")),
        cuda=getattr(built, "cuda", None),
        rocm=getattr(built, "hip", None),
        system=platform.system(),
        visible=environ.get("CUDA_VISIBLE_DEVICES"),
        driver=driver_version(root),
        shown=any(any((root / "dev").glob(pattern)) for pattern in _DEVICE_FILES),
        container=container(root, environ),
        said=said,
    )


def reasons(facts: Facts) -> list[str]:
    """Every reason that *facts* give for torch to see no GPU, the nearest first; none where nothing speaks against one.

    All of them are told, because mending one would only show the next.
    """
    return list(_reasons(facts)) or ([f"torch says: {facts.said}"] if facts.said else [])


def _reasons(facts: Facts) -> Iterator[str]:
    if facts.system == "Darwin":
        yield "there is no CUDA for macOS"
        return
    if facts.torch and not facts.cuda and not facts.rocm:
        yield (
            f"this torch ({facts.torch}) is built for the CPU only; install the CUDA build, with the line that the "
            "selector of pytorch.org gives"
        )
    if facts.visible is not None and _hides_all(facts.visible):
        yield f"CUDA_VISIBLE_DEVICES is {facts.visible!r}, which hides every GPU; start the kernel without it"
    if not facts.shown:
        yield _nothing_shown(facts)
    elif facts.driver and facts.cuda and (oldest := _too_old(facts.driver, facts.cuda)):
        yield (
            f"the NVIDIA driver {facts.driver} is too old for CUDA {facts.cuda}, which this torch is built for; update "
            f"it to {oldest} or newer, or install a torch for an older CUDA"
        )


def _hides_all(visible: str) -> bool:
    """CUDA reads the list up to the first entry that is no device."""
    return not re.match(r"\s*(\d|GPU-|MIG-)", visible)


def _nothing_shown(facts: Facts) -> str:
    if facts.container:
        return "this container was given no GPU (there is no /dev/nvidia0); start it with --gpus all, or its like"
    if facts.driver:
        return f"the NVIDIA driver {facts.driver} shows no GPU (there is no /dev/nvidia0); nvidia-smi may tell why"
    return "there is no NVIDIA GPU here, or no driver for it (no /dev/nvidia0, no /proc/driver/nvidia/version)"


def _too_old(driver: str, cuda: str) -> int | None:
    """The oldest driver for *cuda* if *driver* is older than that."""
    oldest = _OLDEST_DRIVER.get(int(cuda.partition(".")[0]), 0)
    return oldest if int(driver.partition(".")[0]) < oldest else None


def why_none(facts: Facts) -> str:
    """Say that torch sees no GPU, and why, as far as it can be known."""
    told = "; and ".join(reasons(facts)) or "nothing that can be seen from here says why; nvidia-smi may"
    return f"torch.cuda.is_available() is False: {told}."


def why_fewer(count: int, facts: Facts) -> str:
    """Say how many GPUs torch sees, where that is some but not enough."""
    limited = f", as CUDA_VISIBLE_DEVICES={facts.visible} says" if facts.visible is not None else ""
    return f"torch sees {count} GPU{'s' if count != 1 else ''} here{limited}."


def driver_version(root: Path = Path("/")) -> str | None:
    """The version of the NVIDIA driver that is loaded, if there is one: `580.65.06`."""
    with suppress(OSError):
        first = (root / _DRIVER_FILE).read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        if found := re.search(r"\s(\d+\.\d+(\.\d+)?)\s", first):
            return found[1]
    return None


def container(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str | None:
    """What kind of container this process runs in, as far as files and variables tell; None where they do not."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    for name, kind in _CONTAINERS:
        if (root / name).exists():
            return kind
    with suppress(OSError):
        groups = (root / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"docker|kubepods|containerd|libpod|lxc", groups):
            return found[0]
    return environ.get("container") or None
