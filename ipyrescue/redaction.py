"""Texts without credentials: cells, sources and messages as they may be kept and shown. Text to text, never raising.

What is Python is read by its syntax tree: a literal is left out that gets its name by an assignment, a keyword, a key,
a default or a comparison. Patterns do the rest: comments, texts in texts, magics, shell and file cells, and what does
not parse. What a function is asked by is no secret: in
`password = open("a.txt").read()` the text stays.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from ipyrescue.credentials import REDACTED, is_named_so, says_so, without_known_looks

PARSED_CHARACTERS = 100_000
"""A longer text is searched by patterns alone: it is looked at before a cell runs."""

_MENTION = re.compile(r"(?i:pass|secret|token(?!i[sz])|key(?!word|error|board)|credential|login|auth\b|\s-u|--user)")
_MOST_TARGETS = 8
_MOST_DEPTH = 20

_ESCAPE = re.compile(r"\\N\{[^}\n]*\}|\\[^\n]")
_MAGIC_LINE = re.compile(r"^([ \t]*)(?:[%!?]|[^\n='\"#]*=[ \t]*[%!]).*|^([ \t]*)[\w.]+\?{1,2}[ \t]*$", re.MULTILINE)

_STRING = (
    r"""(?:\"\"\"[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*\"\"\"|\'\'\'[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*\'\'\'"""
    r"""|"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')"""
)
_LITERAL = re.compile(
    # A name and its text: `"key": "..."`, `x["key"] = "..."`, `set("key", "...")`, `key = "..."`
    r"""(?P<before>(?:(?P<m>["'])(?P<key>\w[\w.-]*)(?P=m)(?:\s*:|\]\s*=)|(?<=\()(?P<n>["'])(?P<first>\w[\w.-]*)(?P=n)\s*,"""
    r"""|(?<![\w'"-])(?P<bare>[A-Za-z_][\w-]*)[ \t]*"""
    r"""(?:(?::[ \t]*[\w.\[\], |]{1,80}?)?[!=]?=(?=\s*\(?\s*[rbfuRBFU"'])|:[ \t]*(?=\S)))\s*\(?\s*[rbfuRBFU]{0,2})"""
    rf"""(?P<text>{_STRING}(?:[ \t]*{_STRING})*)"""
    # or a text without a name, or a comment: inside them may be more of both.
    rf"""|(?P<other>(?<![\w\\])[rbfuRBFU]{{0,2}}{_STRING}|\#[^\n]*)""",
    re.DOTALL,
)
_OPENING = re.compile(r"""[rbfuRBFU]{0,2}(?:\"\"\"|\'\'\'|["'])|\#+""")

_SHELL_LINE = re.compile(r"^[ \t]*[%!].*", re.MULTILINE)
_SHELL_CELL = re.compile(r"\s*%%(?:bash|sh|zsh|script|cmd|!)")
_PYTHON_CELL = re.compile(r"\s*(?!\s|%%)|\s*%%(?:(?:time|timeit|capture|prun|python3?|px)\b|(?:write)?file\b.*\.py\b)")
_WORD = r"""(?!--)(?P<text>"[^"\n]*"|'[^'\n]*'|[^\s'"(){}$=;&|]+)"""
_SHELL_WORD = re.compile(
    rf"(?P<before>(?P<name>\b(?=\w*(?i:pass|secret|token|key|credential|login))\w+)[= ]){_WORD}"
    rf"|(?P<user>(?<=\s)(?:-u[ \t]*|--user[ =])[^\s:'\"]+:)(?P<password>[^\s'\"$]+)"
)
_SETTING = re.compile(
    r"^(?P<before>[ \t]*(?:export[ \t]+|-[ \t]+)?(?P<name>[\w.-]+)[ \t]*[:=][ \t]*)"
    r"""(?P<text>"[^"\n]*"|'[^'\n]*'|[^\s'"(){}$]+)[ \t]*$""",
    re.MULTILINE,
)


def redacted(source: str) -> str:
    """The text of a cell without its credentials, which are known by what they look like or by the name they get."""
    shown = without_known_looks(source)
    if not _MENTION.search(shown):
        return shown
    shown = _without_named_texts(_without_literals(shown))
    if _SHELL_CELL.match(shown):
        return _SHELL_WORD.sub(_without_word, shown)
    shown = _SHELL_LINE.sub(lambda line: _SHELL_WORD.sub(_without_word, line[0]), shown)
    return shown if _PYTHON_CELL.match(shown) else _SETTING.sub(_without_word, shown)


def shows_a_secret(text: str) -> bool:
    """Whether a line of code or an error's message spells a credential out, or might: it is not noted then."""
    if redacted(text) != text:
        return True
    return any(sign in text for sign in "'\"=:") and any(says_so(word) for word in re.findall(r"[\w-]+", text))


# --- by syntax --------------------------------------------------------------------------------------------------


def _without_literals(source: str) -> str:
    """Python without the literals that get the name of a credential; what does not parse is returned as it is."""
    # As long as the source, so that all places are the same: with one kind of line ends, as the parser counts them,
    # and with `_` instead of escapes, of which it would warn.
    text = source.replace("\r\n", " \n").replace("\r", "\n")
    text = _ESCAPE.sub(lambda found: "_" * len(found[0]), text)
    tree = _tree(text) or _tree(_MAGIC_LINE.sub(r"\1\2pass", text))
    if tree is None:
        return source
    lines = _Lines(text)
    told = (statement for statement in tree.body if _MENTION.search(text, *lines.span(statement)))
    for start, end in sorted({lines.span(node) for node in _credentials(told)}, reverse=True):
        mark, rest = _parted(source[start:end])
        source = f"{source[:start]}{mark}{REDACTED}{mark.lstrip(_PREFIXES)}{source[end:]}" if rest else source
    return source


_PREFIXES = "rbfuRBFU"


def _tree(text: str) -> ast.Module | None:
    if len(text) > PARSED_CHARACTERS:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Lines:
    """Where the lines of a text begin, to find the place of a node, which is told in lines and bytes of UTF-8."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """From where to where a node goes in the text."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._place(node.lineno, node.col_offset), self._place(node.end_lineno, node.end_col_offset)

    def _place(self, line: int, offset_bytes: int) -> int:
        before = self._lines[line - 1].encode(errors="replace")[:offset_bytes]
        return self._starts[line - 1] + len(before.decode(errors="ignore"))


def _credentials(statements: Iterable[ast.stmt]) -> Iterator[ast.expr]:
    """The literals that are one by their name; of one inside of an f-string, the f-string."""
    todo: list[tuple[ast.AST, ast.expr | None]] = [(statement, None) for statement in statements]
    while todo:
        node, around = todo.pop()
        for name, value in _NAMED[type(node)](node) if type(node) in _NAMED else ():
            for literal, text in _literals(value) if _MENTION.search(name) else ():
                if is_named_so(name, text):
                    yield around or literal
        if isinstance(node, ast.JoinedStr):
            around = around or node
        todo.extend((child, around) for child in ast.iter_child_nodes(node))


_Named = Iterable[tuple[str, ast.expr]]


def _named_by_assignment(node: ast.Assign) -> _Named:
    return (pair for target in node.targets[:_MOST_TARGETS] for pair in _pairs(target, node.value))


def _named_by_target(node: Any) -> _Named:
    return _pairs(node.target, node.value) if node.value is not None else ()


def _named_by_comparison(node: ast.Compare) -> _Named:
    for one, other in pairwise((node.left, *node.comparators)):
        yield _name(one), other
        yield _name(other), one


def _named_by_key(node: ast.Dict) -> _Named:
    return ((_text(key), value) for key, value in zip(node.keys, node.values, strict=True) if key is not None)


def _named_by_default(node: ast.arguments) -> _Named:
    places = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
    given = [*zip(places, node.defaults, strict=True), *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
    return ((argument.arg, default) for argument, default in given if default is not None)


def _named_by_call(call: ast.Call) -> _Named:
    """Keywords; what follows a name, as in `getenv("KEY", "...")`; and what `login` gets."""
    first = _text(call.args[0]) if call.args else ""
    is_option, is_login = first.startswith("-"), _name(call.func) == "login"
    for keyword in call.keywords:
        yield from _pair_of_user(keyword)
        yield keyword.arg or "", keyword.value
        yield "token" if is_login else first if keyword.arg in ("default", "value") else "", keyword.value
    for value in call.args[0 if is_login else 1 :] if not is_option else ():
        yield "token" if is_login else first, value


def _pair_of_user(keyword: ast.keyword) -> _Named:
    """The password of `auth=("user", "...")`, as HTTP clients take it."""
    if keyword.arg == "auth" and isinstance(keyword.value, ast.Tuple) and len(keyword.value.elts) == 2:
        yield "password", keyword.value.elts[1]


_NAMED: Mapping[type[ast.AST], Callable[[Any], _Named]] = {
    ast.Assign: _named_by_assignment,
    ast.AnnAssign: _named_by_target,
    ast.AugAssign: _named_by_target,
    ast.NamedExpr: _named_by_target,
    ast.Compare: _named_by_comparison,
    ast.Dict: _named_by_key,
    ast.arguments: _named_by_default,
    ast.Call: _named_by_call,
}
"""Which names a node of Python gives to which expressions."""


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The names of a target with the part of the value that each gets, or all of it where that cannot be told."""
    if not isinstance(target, (ast.Tuple, ast.List)):
        yield _name(target), value
    elif isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
        for one, part in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, part)
    else:
        for one in target.elts[:_MOST_TARGETS]:
            yield _name(one), value


def _name(node: ast.expr) -> str:
    """How a target or the side of a comparison is called: by its last word."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Starred(value=value):
            return _name(value)
    return ""


def _literals(value: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """The literals of which an expression is made, with their text; not what a function is asked by."""
    todo = [value]
    while todo:
        node = todo.pop()
        match node:
            case ast.Constant(value=str() | bytes()) | ast.JoinedStr():
                yield node, _text(node)
            case ast.Call(func=ast.Attribute(value=ast.Constant() as literal)):
                todo.append(literal)
            case ast.Call(func=function, args=[_, *others] as arguments):
                is_class = _name(function)[:1].isupper() or _name(function) in ("str", "bytes")
                todo += arguments if is_class else others
            case ast.Dict(values=parts) | ast.BoolOp(values=parts):
                todo += parts
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                todo += parts
            case ast.BinOp(left=one, right=other) | ast.IfExp(body=one, orelse=other):
                todo += [one, other]
            case ast.Starred(value=part) | ast.Await(value=part) | ast.NamedExpr(value=part) | ast.Lambda(body=part):
                todo.append(part)


def _text(node: ast.expr) -> str:
    """What a literal says; of an f-string what stands between its fields."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(raw)):
            return raw.decode("latin-1")
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
    return ""


# --- by patterns ------------------------------------------------------------------------------------------------


def _without_named_texts(text: str, depth: int = 0) -> str:
    """Without the texts whose name says so; inside of other texts and comments likewise, to some depth."""
    if depth > _MOST_DEPTH:
        return text
    return _LITERAL.sub(lambda found: _without_credential(found, depth + 1), text)


def _without_credential(found: re.Match[str], depth: int) -> str:
    if found["other"] is not None:
        mark, rest = _parted(found["other"])
        return mark + _without_named_texts(rest, depth)
    mark, rest = _parted(found["text"])
    name = found["key"] or found["first"] or found["bare"]
    if is_named_so(name, rest.removesuffix(mark)):
        return f"{found['before']}{mark}{REDACTED}{mark}"
    return found["before"] + mark + _without_named_texts(rest, depth)


def _parted(text: str) -> tuple[str, str]:
    """What a literal or a comment opens with, and the rest of it."""
    found = _OPENING.match(text)
    mark = found[0] if found is not None else ""
    return mark, text[len(mark) :]


def _without_word(found: re.Match[str]) -> str:
    """A name and its text in a shell or a file, without the text if the name says so."""
    if found.groupdict().get("user") is not None:
        return found["user"] + (found["password"] if found["password"].isdigit() else REDACTED)
    name = "token" if found["name"] == "login" else found["name"]
    mark, rest = _parted(found["text"])
    return f"{found['before']}{mark}{REDACTED}{mark}" if is_named_so(name, rest.removesuffix(mark)) else found[0]
