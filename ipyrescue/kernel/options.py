"""A magic's line against a table of options, into values by name. Pure; knows none of the magics.

`every=5m`, `--every 5m`, `--every=5m` and `-e 5m` mean the same; a bare word is always a name. One table per magic
feeds the parsing, the did-you-mean and the option part of the help text.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError

# Looked for before the quotes are gone: without them, cfg['lr'] is a pattern that means cfgl or cfgr.
_ITEM = re.compile(r"(\w+)\[['\"]")


@dataclass(frozen=True)
class Option:
    """One option: its *name*, and how it is read. Without *parse* it is a flag; *many* may be said again.

    *short* is the letter after one dash; *metavar* and *help* are for the manual.
    """

    name: str
    help: str
    parse: Callable[[str], Any] | None = None
    short: str = ""
    metavar: str = ""
    many: bool = False

    @property
    def key(self) -> str:
        """The name under which its value is found: `dry_run` for `dry-run`."""
        return self.name.replace("-", "_")

    @property
    def spelled(self) -> str:
        """How the manual writes it."""
        if self.parse is not None and not self.many:
            return f"{self.key}={self.metavar}"
        short = f"-{self.short}, " if self.short else ""
        return f"{short}--{self.name}" + (f" {self.metavar}" if self.metavar else "")


@dataclass(frozen=True)
class Grammar:
    """What one magic understands; *unbuilt* are words of days to come, each with what to type until then."""

    magic: str
    options: tuple[Option, ...]
    unbuilt: Mapping[str, str]

    def manual(self) -> str:
        """Write the option part of the help text."""
        width = max(len(option.spelled) for option in self.options) + 2
        return "\n".join(f"    {option.spelled.ljust(width)}{option.help}" for option in self.options)

    def read(self, line: str) -> tuple[list[str], dict[str, Any]]:
        """Split *line* into its bare words and the values of its options; raise `UsageError` in one line."""
        words: list[str] = []
        said: dict[str, Any] = {}
        tokens = _tokens(line)
        while tokens:
            token = tokens.pop(0)
            name, equals, value = token.partition("=")
            if not token.startswith("-") and not equals:
                _refuse_spaced(token, tokens)
                words += [word for word in token.split(",") if word]
                continue
            option = self._find(name, value)
            self._say(option, said, _value(option, value if equals else None, tokens))
        return words, said

    def _find(self, name: str, value: str) -> Option:
        bare = name.lstrip("-").replace("_", "-")
        for option in self.options:
            # `-every` is neither short nor long: it falls through to the did-you-mean.
            if (option.short and name == f"-{option.short}") or (bare == option.name and name != f"-{bare}"):
                if option.parse is None and not name.startswith("-"):
                    raise UsageError(f"Write `--{option.name}`; `{name}={value}` is not understood.")
                return option
        if bare in self.unbuilt:
            raise UsageError(self.unbuilt[bare])
        raise UsageError(f"`{name or '='}` is no option of %{self.magic}. {self._nearest(name, bare)}")

    def _nearest(self, name: str, bare: str) -> str:
        if not bare:
            return "Write every=5m without spaces around =."
        near = difflib.get_close_matches(bare, [option.name for option in self.options], n=1, cutoff=0.5)
        spelled = [option.spelled for option in self.options if option.name in near]
        return f"Did you mean `{spelled[0]}`?" if spelled else f"All of them: %{self.magic}?"

    def _say(self, option: Option, said: dict[str, Any], value: Any) -> None:
        if option.many:
            said[option.key] = (*said.get(option.key, ()), *value)
        elif option.key in said and option.parse is not None:
            raise UsageError(f"`{option.name}` is said twice. Say it once.")
        else:
            said[option.key] = value


def _tokens(line: str) -> list[str]:
    item = _ITEM.search(line)
    if item:
        raise UsageError(f"`{item[0]}...` is a part of a variable. Only whole variables can be named: {item[1]}")
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"A quote is never closed: `{line.strip()}`. Close it, or leave it out.") from error


def _value(option: Option, given: str | None, tokens: list[str]) -> Any:
    if option.parse is None:
        if given is not None:
            raise UsageError(f"`--{option.name}` takes no value. Write it alone.")
        return True
    if given is None and tokens and not tokens[0].startswith("-"):
        given = tokens.pop(0)
    if not given or given == "=":
        raise UsageError(f"`{option.name}` needs a value. Write `{option.spelled}`, without spaces around =.")
    try:
        return option.parse(given)
    except ValueError as error:
        raise UsageError(f"`{option.name}` cannot be read: {error}") from error


def _refuse_spaced(token: str, tokens: list[str]) -> None:
    """Catch `every = 5m` and `every =5m`, which would otherwise be three names."""
    if tokens and tokens[0].startswith("="):
        value = tokens[0][1:] or (tokens[1] if len(tokens) > 1 else "...")
        raise UsageError(f"Write `{token}={value}` without spaces around =.")
