"""nbformat, imported without what takes most of the time of its import and that nothing of it uses.

jsonschema (4.26) imports rfc3987_syntax where it is installed, as beside every Jupyter server, for the format `iri` of
JSON Schema. That builds a grammar at its import: two seconds, for a format that no notebook's schema has. jsonschema
does so under `suppress(ImportError)` and goes without that one format where it is missing.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Have the import of the module *name* fail within the block, unless it was imported before; a later one works."""
    if name in sys.modules:
        yield
        return
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules[name] = None  # as `import` documents it
    try:
        yield
    finally:
        if modules.get(name, name) is None:
            del modules[name]


with without("rfc3987_syntax"):
    import nbformat

__all__ = ["nbformat", "without"]
