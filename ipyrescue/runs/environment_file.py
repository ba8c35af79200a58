"""A file of environment variables, in docker's format, to names and values. The values are never kept or shown.

`KEY=VALUE` is taken as it stands, quotes included; `KEY` alone passes the environment's value on, if there is one;
what begins with `#` is a comment (docker run --env-file).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ipyrescue.errors import RunError

_BLANKS = " \t"
_LARGEST_BYTES = 1 << 20


def read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that *path* sets. Raises RunError, which quotes nothing of the file."""
    variables = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        line = line.removesuffix("\r").lstrip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        _refuse_odd_name(name, f"Line {number} of {path}", is_alone=not equals)
        if equals:
            variables[name] = value
        elif name in environ:
            variables[name] = environ[name]
    return variables


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise RunError(f"The file of environment variables {path} cannot be read: {error.strerror}.") from error
    if len(data) > _LARGEST_BYTES or b"\0" in data:
        raise RunError(f"{path} is no file of environment variables: it is too large, or not a text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no file of environment variables: it is not UTF-8.") from error


def _refuse_odd_name(name: str, where: str, *, is_alone: bool) -> None:
    if not name:
        raise RunError(f"{where} has no name before its `=`. Write KEY=VALUE, or KEY alone.")
    if any(blank in name for blank in _BLANKS):
        what = "has blanks and no `=`" if is_alone else "has a blank in the name before its `=`"
        raise RunError(f"{where} {what}. Write KEY=VALUE without blanks around `=`, or KEY alone.")
