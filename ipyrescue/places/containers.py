"""Where this process runs: the files of a machine, or what `docker inspect` printed, into facts about a container.

Pure over a folder that stands for the machine, as in `ipyrescue.cgroups`. What can be seen from the inside is the first
process, the mounts, /dev/shm and the GPUs; `--rm` and the stop timeout only `docker inspect` can tell. Judges nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ipyrescue import gpus

MACHINE = Path("/")
"""Where /proc, /sys and /dev stand."""

SHELLS = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"})
INITS = frozenset({"catatonit", "docker-init", "dumb-init", "tini", "tini-static"})
"""Small first processes that hand signals to one child and reap what is orphaned."""
DYING = frozenset({"docker", "podman", "kubernetes", "kubepods", "containerd", "libpod", "oci"})
_REAPERS = INITS | SHELLS | {"init", "s6-svscan", "supervisord", "systemd"}
_ENTRYPOINT = "ipyrescue/entrypoint.py"
"""Where an image has the one of docker/: it reaps, and hands SIGTERM to every kernel."""
_MEMORY_FILE_SYSTEMS = frozenset({"ramfs", "tmpfs"})
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Mount:
    """Something mounted at *point*; *source* is a folder of the host or the name of a volume, empty where not known.

    *kept* is False for what ends with the container: memory, and volumes that nobody named where `--rm` takes them.
    """

    point: str
    file_system: str = ""
    source: str = ""
    kept: bool = True


@dataclass(frozen=True)
class Facts:
    """What is known of the place. *kind* is `docker`, `podman`, `kubernetes`...; None where no container is seen.

    *name* is what `docker` knows it by; *main* are the words of its first process, and *terminal* says that this has
    one; *attached*: somebody's `docker run` holds that terminal. *reaps*: the first process collects orphans.
    *asks_gpu* is who speaks for a GPU that should be here: `driver`, `image` or None. *environ* are the variables that
    say where things stand. None elsewhere: not known. *inspected*: they are the words of `docker inspect`.
    """

    kind: str | None = None
    name: str | None = None
    image: str | None = None
    main: tuple[str, ...] = ()
    terminal: bool = False
    attached: bool | None = None
    reaps: bool | None = None
    removed: bool | None = None
    stop_seconds: float | None = None
    shm_bytes: int | None = None
    has_gpu: bool = False
    asks_gpu: str | None = None
    working_folder: str = "/"
    mounts: tuple[Mount, ...] = ()
    ports: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()
    inspected: bool = False

    @property
    def dies(self) -> bool:
        """Whether what stands on its own layer goes with it: Docker's kind, not a machine that happens to be one."""
        return self.kind in DYING

    @property
    def program(self) -> tuple[str, ...]:
        """The first process without an init before it."""
        return _without_init(self.main)

    @property
    def main_is_shell(self) -> bool:
        """Whether the first process is a shell that reads what is typed, not one that runs a script."""
        words = list(self.program) or [""]
        while len(words) > 1 and words[-1].startswith("-") and words[-1] != "-c":
            words.pop()
        *before, last = words
        return _name(last) in SHELLS and "-c" not in before

    @property
    def forwards_signals(self) -> bool:
        """Whether SIGTERM to the first process reaches kernels of other sessions: our entrypoint does that."""
        return any(word.endswith(_ENTRYPOINT) for word in self.program[:3])

    def mount_of(self, path: str) -> Mount | None:
        """The mount that *path* (absolute, links followed) stands on; None: the container's own layer, or the root."""
        under = [mount for mount in self.mounts if mount.point != "/" and _is_under(path, mount.point)]
        return max(reversed(under), key=lambda mount: len(mount.point), default=None)


def look(machine: Path = MACHINE, environ: Mapping[str, str] = os.environ) -> Facts:
    """The facts of this process, as far as they can be seen from the inside."""
    main = tuple(_words(machine / "proc/1/cmdline"))
    gpu = gpus.look("", machine, environ)
    return Facts(
        kind=gpu.container,
        name=_text(machine / "etc/hostname").strip() or None,
        main=main,
        terminal=_has_terminal(machine / "proc/1/stat"),
        reaps=reaps(main),
        shm_bytes=_size(machine / "dev/shm"),
        has_gpu=gpu.shown,
        asks_gpu="driver" if gpu.driver else asked_by_image(environ),
        mounts=tuple(_mounts(machine)),
    )


def reaps(main: tuple[str, ...]) -> bool:
    """Whether a first process of these words collects orphaned processes that have ended."""
    return bool(main) and (_name(main[0]) in _REAPERS or any(word.endswith(_ENTRYPOINT) for word in main[:3]))


def asked_by_image(environ: Mapping[str, str]) -> str | None:
    """`image` if its environment is that of an image for NVIDIA GPUs."""
    return "image" if environ.get("NVIDIA_VISIBLE_DEVICES", "") not in ("", "void", "none") else None


def _without_init(main: tuple[str, ...]) -> tuple[str, ...]:
    if not main or _name(main[0]) not in INITS:
        return main
    rest = main[1:]
    if "--" in rest:
        return rest[rest.index("--") + 1 :]
    return next((rest[at:] for at, word in enumerate(rest) if not word.startswith("-")), ())


def _name(word: str) -> str:
    return PurePosixPath(word).name.lstrip("-")


def _is_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


# --- files of the machine ----------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(_LARGEST_BYTES).decode("utf-8", "replace")
    return ""


def _words(path: Path) -> list[str]:
    return [word for word in _text(path).split("\0") if word]


def _has_terminal(stat: Path) -> bool:
    """Whether a process has a controlling terminal (proc_pid_stat(5), `tty_nr`)."""
    fields = _text(stat).rpartition(")")[2].split()
    return len(fields) > 4 and fields[4] not in ("0", "-1")


def _size(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # Windows has no statvfs
        return None
    return found.f_frsize * found.f_blocks


def _mounts(machine: Path) -> list[Mount]:
    """The mounts of this process, in the order in which they were made (proc_pid_mountinfo(5))."""
    found = []
    for line in _text(machine / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(kind) >= 2:
            found.append(_mount(_unescaped(fields[3]), _unescaped(fields[4]), kind[0]))
    return found


def _mount(root: str, point: str, file_system: str) -> Mount:
    volume = re.search(r"/volumes/([^/]+)/_data$", root)
    of_pod = "kubernetes.io~empty-dir" in root
    kept = file_system not in _MEMORY_FILE_SYSTEMS and not of_pod
    return Mount(point, file_system, volume[1] if volume else "", kept)


def _unescaped(field: str) -> str:
    r"""Undo the kernel's escapes of spaces and the like: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
