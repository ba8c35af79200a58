"""The source text of what cells define, kept so that tracebacks and differences have it after a restore.

IPython keeps a cell's text in `linecache` under the file name of its code objects; a new kernel does not have it.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import types
from typing import Any

from ipyrescue.pickling.trust import attributes_of, name_of

_MAX_CHARACTERS = 20_000


def is_class(value: Any) -> bool:
    """Whether *value* is a class; `isinstance` would ask the `__class__` of the user's proxies."""
    return issubclass(type(value), type)


def source_of(value: Any) -> str | None:
    """Return the text of a function or class that a cell defined, or None where it cannot be told."""
    try:
        return _text_of(value)
    except Exception:  # noqa: BLE001 - what stands in a file that was edited since may be anything, and raise anything
        return None


def _text_of(value: Any) -> str | None:
    where = _where(value)
    if where is None:
        return None
    filename, first_line = where
    lines = linecache.getlines(filename)[first_line - 1 :]
    text = "".join(inspect.getblock(lines))
    return text if 0 < len(text) <= _MAX_CHARACTERS else None


def remember_source(value: Any, text: str) -> None:
    """Give `linecache` the text of a restored function or class, unless it has a text for those lines."""
    function = _first_function(value)
    if function is None:
        return
    filename, first_line = function.__code__.co_filename, function.__code__.co_firstlineno
    if is_class(value):
        first_line -= _line_of_method(text, function.__name__)
    if first_line < 1:
        return
    lines = linecache.getlines(filename)
    new = text.splitlines(keepends=True)
    lines += ["\n"] * (first_line - 1 + len(new) - len(lines))
    if not any(line.strip() for line in lines[first_line - 1 : first_line - 1 + len(new)]):
        lines[first_line - 1 : first_line - 1 + len(new)] = new
        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


def _where(value: Any) -> tuple[str, int] | None:
    """The file name and first line of a definition; a class is found by its first method."""
    function = _first_function(value)
    if function is None:
        return None
    code = function.__code__
    if not is_class(value):
        return code.co_filename, code.co_firstlineno
    name = name_of(value).rpartition(".")[2]
    first_line = _class_line(linecache.getlines(code.co_filename), name, code.co_firstlineno)
    return None if first_line is None else (code.co_filename, first_line)


def _first_function(value: Any) -> types.FunctionType | None:
    if type(value) is types.FunctionType:
        return value
    members = list(attributes_of(value).values()) if is_class(value) else ()
    own = [m for m in members if type(m) is types.FunctionType and m.__qualname__.startswith(name_of(value))]
    return min(own, key=lambda f: f.__code__.co_firstlineno, default=None)


def _class_line(lines: list[str], name: str, inner_line: int) -> int | None:
    for node in _classes("".join(lines)):
        if node.name == name and node.lineno <= inner_line <= (node.end_lineno or 0):
            return min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return None


def _line_of_method(text: str, name: str) -> int:
    """How many lines below the first line of a class its method *name* begins."""
    for node in _classes(text):
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and child.name == name:
                return min([child.lineno, *(d.lineno for d in child.decorator_list)]) - 1
    return 0


def _classes(text: str) -> list[ast.ClassDef]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
