"""The environment of a process that starts in another folder: what names a file here names it there too."""

from __future__ import annotations

import os
from collections.abc import Mapping

_FILES = ("IPYRESCUE_KEY_FILE", "IPYRESCUE_STORE", "JUPYTER_DATA_DIR")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* with absolute paths for the key, the store, Jupyter's data and the folders of `PYTHONPATH`."""
    made = dict(environ)
    for name in filter(environ.get, _FILES):
        made[name] = os.path.abspath(os.path.expanduser(environ[name]))
    if environ.get("PYTHONPATH"):
        entries = environ["PYTHONPATH"].split(os.pathsep)
        made["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries)
    return made
