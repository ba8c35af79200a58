"""What `docker inspect NAME` printed into the facts of that container. Text from outside: read with strict types.

A field that is missing is not known; one of another type than Docker's refuses the whole document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ipyrescue.errors import RescueError
from ipyrescue.runs.containers import Facts, Mount, asked_by_image, reaps

LARGEST_BYTES = 4 << 20
DEFAULT_STOP_SECONDS = 10.0
"""What `docker stop` grants where nothing else was said."""
DEFAULT_SHM_BYTES = 64 << 20

_LONGEST_TEXT = 32_768
_LARGEST_NUMBER = (1 << 63) - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_PORT = re.compile(r"[0-9]{1,5}/(tcp|udp|sctp)")

_PLACES = ("HOME", "JUPYTER_DATA_DIR", "IPYRESCUE_STORE", "IPYRESCUE_KEY_FILE")
"""The variables that are kept; others may hold a password."""
_GPU = "NVIDIA_VISIBLE_DEVICES"


def of_inspect(document: object) -> Facts:
    """The facts of the one container that *document*, parsed JSON, describes.

    *attached* is whether `docker run` was not told `-d`. Raises RescueError.
    """
    one = _only(document)
    config, host = _member(one, "Config", dict, {}), _member(one, "HostConfig", dict, {})
    if not config or not host:
        raise _refused("it has no Config and HostConfig")
    main = (*_texts(config, "Entrypoint"), *_texts(config, "Cmd"))
    variables = dict(map(_pair, _texts(config, "Env")))
    environ = {name: _line("Env", value) for name, value in variables.items() if name in (*_PLACES, _GPU)}
    removed = _member(host, "AutoRemove", bool, False)
    return Facts(
        kind="docker",
        name=_container_name(one),
        image=_member(config, "Image", str, None),
        main=("docker-init", "--", *main) if _member(host, "Init", bool, False) else main,
        terminal=_member(config, "Tty", bool, False) and _member(config, "OpenStdin", bool, False),
        attached=_member(config, "AttachStdin", bool, None),
        reaps=_member(host, "Init", bool, False) or reaps(main),
        removed=removed,
        stop_seconds=_seconds(config),
        shm_bytes=_shm_bytes(host),
        has_gpu=_has_gpu(host),
        asks_gpu=asked_by_image(environ),
        working_folder=_member(config, "WorkingDir", str, "/") or "/",
        mounts=tuple(_mounts(one, host, removed=removed)),
        ports=tuple(_ports(host)),
        environ=tuple((name, environ[name]) for name in _PLACES if environ.get(name)),
        inspected=True,
    )


def parse(text: bytes) -> Facts:
    """The facts of what `docker inspect NAME` printed. Raises RescueError."""
    if len(text) > LARGEST_BYTES:
        raise _refused("it is too long")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("it is no JSON") from None
    return of_inspect(document)


def _refused(why: str) -> RescueError:
    return RescueError(
        f"This is not what `docker inspect` prints of one container: {why}. Type: "
        "docker inspect NAME | ipyrescue doctor --inspect -"
    )


def _only(document: object) -> dict[str, Any]:
    found = document if type(document) is list else [document]
    if len(found) != 1 or type(found[0]) is not dict:
        raise _refused(f"it describes {len(found)} containers" if len(found) != 1 else "it is no object")
    return found[0]


# --- fields of a strict type ---------------------------------------------------------------------------------------


def _member(fields: Mapping[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    """A field, or *default* where it is missing or null; texts in one line, numbers that a file can hold."""
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise _refused(f"{name} is {_kind(value)}")
    if isinstance(value, str):
        return _line(name, value)
    if type(value) is int and abs(value) > _LARGEST_NUMBER:
        raise _refused(f"{name} is too large a number")
    return value


def _line(name: str, value: str) -> str:
    if len(value) > _LONGEST_TEXT or not value.isprintable():
        raise _refused(f"{name} holds what no command line does")
    return value


def _kind(value: object) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "of a strange type")


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts; one text alone counts as such a list."""
    value = fields.get(name)
    found = [] if value is None else [value] if type(value) is str else value
    if type(found) is not list or not all(type(item) is str for item in found):
        raise _refused(f"{name} is no list of texts")
    if sum(map(len, found)) > _LONGEST_TEXT:
        raise _refused(f"{name} is too long")
    return tuple(found)


def _objects(fields: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found: list[Any] = _member(fields, name, list, [])
    if not all(type(item) is dict for item in found):
        raise _refused(f"{name} is no list of objects")
    return found


# --- what Docker means by them -------------------------------------------------------------------------------------


def _container_name(one: Mapping[str, Any]) -> str | None:
    name = str(_member(one, "Name", str, "")).lstrip("/")
    if name and not _NAME.fullmatch(name):
        raise _refused("Name is no name of a container")
    return name or None


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _seconds(config: Mapping[str, Any]) -> float | None:
    """How long `docker stop` waits; None: for ever, which is a negative number."""
    said = _member(config, "StopTimeout", int, None)
    if said is None:
        return DEFAULT_STOP_SECONDS
    return float(said) if said >= 0 else None


def _shm_bytes(host: Mapping[str, Any]) -> int | None:
    """The size of /dev/shm; None where it is the host's or another container's."""
    mode = _member(host, "IpcMode", str, "")
    if mode == "host" or mode.startswith("container:"):
        return None
    return _member(host, "ShmSize", int, 0) or DEFAULT_SHM_BYTES


def _has_gpu(host: Mapping[str, Any]) -> bool:
    if _member(host, "Runtime", str, "") == "nvidia":
        return True
    if any("/dev/nvidia" in str(device.get("PathOnHost", "")) for device in _objects(host, "Devices")):
        return True
    return any(_is_for_gpus(request) for request in _objects(host, "DeviceRequests"))


def _is_for_gpus(request: Mapping[str, Any]) -> bool:
    alternatives = _member(request, "Capabilities", list, [])
    if not all(type(words) is list and all(type(word) is str for word in words) for words in alternatives):
        raise _refused("Capabilities is no list of lists of texts")
    names = _texts(request, "DeviceIDs")
    return any("gpu" in words for words in alternatives) or any(name.startswith("nvidia.com/") for name in names)


def _mounts(one: Mapping[str, Any], host: Mapping[str, Any], *, removed: bool) -> list[Mount]:
    found = [_mount(fields, removed=removed) for fields in _objects(one, "Mounts")]
    in_memory = _member(host, "Tmpfs", dict, {})
    return [*found, *(Mount(_line("Tmpfs", point), "tmpfs", "", kept=False) for point in in_memory)]


def _mount(fields: Mapping[str, Any], *, removed: bool) -> Mount:
    kind, point = _member(fields, "Type", str, ""), _member(fields, "Destination", str, "")
    if not point.startswith("/"):
        raise _refused("the Destination of one of its Mounts is no absolute path")
    source = _member(fields, "Name" if kind == "volume" else "Source", str, "")
    anonymous = kind == "volume" and _ANONYMOUS.fullmatch(source) is not None
    kept = kind != "tmpfs" and not (anonymous and removed)
    return Mount(point, "tmpfs" if kind == "tmpfs" else "", source, kept)


def _ports(host: Mapping[str, Any]) -> list[str]:
    """What stands behind `-p`, for each published port."""
    found = []
    bindings: dict[str, Any] = _member(host, "PortBindings", dict, {})
    for port in bindings:
        if not _PORT.fullmatch(port):
            raise _refused("PortBindings names what is no port")
        for binding in _objects(bindings, port):
            address, number = _member(binding, "HostIp", str, ""), _member(binding, "HostPort", str, "")
            inside = port.removesuffix("/tcp")
            found.append(":".join(part for part in (address, number, inside) if part))
    return found
