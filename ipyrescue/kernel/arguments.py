"""The lines of the three magics into frozen data: what was said, and nothing that was not. Pure.

Also their manuals: `%checkpoint_vars?` shows what stands here, with an example session that a test runs.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from IPython.core.error import UsageError

from ipyrescue.kernel.options import Grammar, Option
from ipyrescue.settings import parse_count, parse_duration, parse_policy, parse_size


@dataclass(frozen=True)
class CheckpointArguments:
    """A line of `%checkpoint_vars`. `None` means not said. With *off*, *off_names* are those to tag no longer."""

    names: tuple[str, ...] = ()
    every_seconds: float | None = None
    keep: int | None = None
    max_size_bytes: int | None = None
    label: str | None = None
    only: bool = False
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    on_death: str | None = None
    off: bool = False
    off_names: tuple[str, ...] = ()
    status: bool = False
    dry_run: bool = False
    check: bool = False
    json: bool = False


@dataclass(frozen=True)
class RestoreArguments:
    """A line of `%restore_vars`. *source* is an id prefix, a label or `latest~N`."""

    names: tuple[str, ...] = ()
    source: str | None = None
    device: Literal["cpu"] | None = None
    prefix: str = ""
    list: bool = False
    all: bool = False
    dry_run: bool = False
    keep_existing: bool = False
    keep_classes: bool = False
    force: bool = False
    undo: bool = False
    forget_undo: bool = False
    dismiss: bool = False
    trust: bool = False
    safe: bool = False
    json: bool = False


@dataclass(frozen=True)
class SnapshotsArguments:
    """A line of `%snapshots`. *verb* is `list`, or what is done with the snapshots that *ids* name."""

    verb: str = "list"
    ids: tuple[str, ...] = ()
    all: bool = False
    code: bool = False
    json: bool = False


def parse_checkpoint(line: str) -> CheckpointArguments:
    """Read a line of `%checkpoint_vars`; raise `UsageError`."""
    words, said = _CHECKPOINT.read(line)
    names = _names(words, _CHECKPOINT)
    for option, field in (("every", "every_seconds"), ("max_size", "max_size_bytes")):
        if option in said:
            said[field] = said.pop(option)
    if said.get("off"):
        _refuse_beside(said, "--off", allowed={"off", "json"})
        return CheckpointArguments(off_names=names, **said)
    if said.get("status"):
        _refuse_beside(said | {"names": names} if names else said, "--status", allowed={"status", "json"})
    if said.get("dry_run") and said.get("check"):
        raise UsageError("`--check` and `dry-run` do not go together: what was not saved cannot be loaded.")
    return CheckpointArguments(names=names, **said)


def parse_restore(line: str) -> RestoreArguments:
    """Read a line of `%restore_vars`; raise `UsageError`."""
    words, said = _RESTORE.read(line)
    if said.get("all") and not said.get("list"):
        raise UsageError("`--all` goes with `--list`: snapshots of other notebooks are taken by from=ID.")
    for option in ("undo", "forget-undo"):
        if said.get(option.replace("-", "_")):
            _refuse_beside(_said_in(said, words), f"--{option}", allowed={option.replace("-", "_"), "json"})
    if said.get("safe"):
        _refuse_beside(_said_in(said, []), "--safe", allowed={"safe", "from", "as", "keep_existing", "device", "json"})
    said["source"], said["prefix"] = said.pop("from", None), said.pop("as", "")
    if said.get("trust") and said["source"] is None:
        raise UsageError("`--trust` needs to know which snapshot. Write from=ID; the ids stand in %snapshots")
    return RestoreArguments(names=_names(words, _RESTORE), **said)


def parse_snapshots(line: str) -> SnapshotsArguments:
    """Read a line of `%snapshots`; raise `UsageError`."""
    words, said = _SNAPSHOTS.read(line)
    verb, rest = (words[0], words[1:]) if words else ("list", [])
    if verb in _UNBUILT_VERBS:
        raise UsageError(_UNBUILT_VERBS[verb])
    if verb not in _VERBS:
        raise UsageError(f"`{verb}` is no verb of %snapshots: {', '.join(_VERBS)} are. {_nearest_verb(verb)}".rstrip())
    if said.get("code") and verb != "show":
        raise UsageError("`--code` goes with `show`: %snapshots show ID --code")
    takes, counts = _VERBS[verb]
    if len(rest) not in counts:
        raise UsageError(f"`%snapshots {verb}` takes {takes}. The ids stand in the table: %snapshots")
    try:
        return SnapshotsArguments(verb=verb, ids=tuple(map(parse_source, rest)), **said)
    except ValueError as error:
        raise UsageError(f"`%snapshots {verb}` cannot be done: {error}") from error


def _nearest_verb(word: str) -> str:
    near = difflib.get_close_matches(word, _VERBS, n=1)
    if near:
        return f"Did you mean `%snapshots {near[0]}`?"
    return f"Did you mean `%snapshots show {word}`?" if re.fullmatch("[0-9a-f]+|latest.*", word) else ""


def parse_source(text: str) -> str:
    """Check what names a snapshot: an id prefix, a label, `latest` or `latest~N`; raise `ValueError`."""
    if text.startswith("@"):
        raise ValueError("a time (`@10:42`) is not built yet; take an id from %snapshots.")
    if text.startswith("latest") and not re.fullmatch(r"latest(~\d{1,6})?", text):
        raise ValueError(f"`{text}` is not understood. Write latest, or latest~2 for the second before it.")
    return text


def parse_device(text: str) -> Literal["cpu"]:
    """Check where tensors shall be: on the CPU, or by themselves where they were; raise `ValueError`."""
    if text == "cpu":
        return "cpu"
    raise ValueError(f"`{text}` is no choice. Write device=cpu, or leave it out: then each tensor goes where it was.")


def parse_prefix(text: str) -> str:
    """Check what every name is to begin with; raise `ValueError`."""
    if not text.isidentifier() or text.startswith("_"):
        raise ValueError(f"`{text}` is no beginning of a name. Write it like old_, then model comes back as old_model.")
    return text


def parse_label(text: str) -> str:
    """Check a label: one that could be taken for something else, or that no line can show, is refused."""
    if not text.isprintable() or len(text) > 100:
        raise ValueError("a label is one line of at most 100 characters.")
    if text.startswith(("latest", "@")) or "," in text:
        raise ValueError(f"`{text}` would be taken for something else. Write it like before-lr.")
    return text


def _patterns(text: str) -> tuple[str, ...]:
    """Read names or globs with commas between them; raise `ValueError`."""
    found = tuple(word for word in text.split(",") if word)
    for word in found:
        if not _is_name(word):
            raise ValueError(f"`{word}` is no name and no pattern. Write it like tmp_*.")
    return found


def _names(words: list[str], grammar: Grammar) -> tuple[str, ...]:
    for word in words:
        if not _is_name(word):
            raise UsageError(f"`{word}` is no variable name. {_instead(word, grammar)}")
    return tuple(dict.fromkeys(words))


def _instead(word: str, grammar: Grammar) -> str:
    if "." in word or "[" in word:
        whole = re.split(r"[.\[]", word)[0]
        return f"Only whole variables can be named: {whole}" if whole else "Only whole variables can be named."
    if grammar is _RESTORE:
        return f"To name a snapshot: from={word}"
    return "Names and patterns like model* are understood."


def _is_name(word: str) -> bool:
    return re.sub(r"\[!?[\w-]+\]|[*?]", "_", word).isidentifier()


def _said_in(said: dict[str, object], words: list[str]) -> dict[str, object]:
    """What a line says, its names included."""
    return {key: value for key, value in (said | {"names": words}).items() if value}


def _refuse_beside(said: dict[str, object], option: str, *, allowed: set[str]) -> None:
    for key in said:
        if key not in allowed:
            spelled = key.removesuffix("_seconds").removesuffix("_bytes").replace("_", "-")
            raise UsageError(f"`{option}` and `{spelled}` do not go together. Say one of them.")


_CHECKPOINT = Grammar(
    "checkpoint_vars",
    (
        Option(
            "every", "arm: snapshots after and inside cells, at most so often (5m 1h30m)", parse_duration, "e", "5m"
        ),
        Option("keep", "how many of the last snapshots stay", parse_count, "k", "10"),
        Option("max-size", "how large the store may grow (500MB 2GiB)", parse_size, metavar="20GB"),
        Option("label", "a name for this snapshot, to find it again", parse_label, metavar="before-lr"),
        Option("only", "save nothing but the names said here"),
        Option("exclude", "never save what matches", _patterns, "x", "PATTERN", many=True),
        Option("allow", "save it although it looks like a secret", _patterns, metavar="NAME", many=True),
        Option("on-death", "what the next kernel does if this one dies", parse_policy, metavar="offer|restore|never"),
        Option("off", "disarm; with names: tag those no longer"),
        Option("status", "tell what is protected, and change nothing"),
        Option("dry-run", "tell what would be saved, and save nothing", short="n"),
        Option("check", "then restore it in a fresh process, and tell what does not come back as it is"),
        Option("json", "return the result as JSON"),
    ),
    {
        "steps": "`steps=` is not built yet. Say how often by time: every=5m",
        "to": "`to=` is not built yet. Set IPYRESCUE_STORE to the folder before the kernel starts.",
        "tag": "`tag=` is called label=. Write label=before-lr",
        "restore": "To restore, type %restore_vars",
        "r": "To restore, type %restore_vars",
    },
)

_RESTORE = Grammar(
    "restore_vars",
    (
        Option("from", "which snapshot: an id's beginning, a label, latest, latest~2", parse_source, "f", "3f9c"),
        Option("as", "bind each name behind this, beside yours: old_model", parse_prefix, metavar="old_"),
        Option("device", "put all tensors there, wherever they were; only cpu", parse_device, metavar="cpu"),
        Option("list", "show the snapshots, and restore nothing", short="l"),
        Option("all", "with --list: those of every notebook in this store", short="a"),
        Option("dry-run", "tell what would be restored, and restore nothing", short="n"),
        Option("keep-existing", "leave names alone that are bound already"),
        Option("keep-classes", "a class that you edited and ran again stays, also for the instances that come back"),
        Option("force", "take names away from what they share objects with; into a live model or optimizer in place"),
        Option("undo", "take the last restore back: what it replaced is there again, the very same objects"),
        Option("forget-undo", "let go of what the last restore replaced, to free its memory"),
        Option("dismiss", "what the last kernel left is not wanted: offer it no more"),
        Option("trust", "take a snapshot of another key as your own; needs from="),
        Option("safe", "unpickle nothing: bring tensors, arrays and plain values only, also of another key's snapshot"),
        Option("json", "return the result as JSON"),
    ),
    {
        "into": "`into=` is for Python: ipyrescue.restore(into=found), where found is a dict of yours.",
        "step": "`step=` is not built yet. Take an id from %snapshots.",
    },
)

_SNAPSHOTS = Grammar(
    "snapshots",
    (
        Option("all", "those of every notebook in this store", short="a"),
        Option("code", "with show: the cells that its session had run"),
        Option("json", "return the table as JSON"),
    ),
    {},
)

_VERBS = {
    "list": ("no id", (0,)),
    "show": ("one id", (1,)),
    "diff": ("at most two ids", (0, 1, 2)),
    "pin": ("one id", (1,)),
    "unpin": ("one id", (1,)),
    "forget": ("one id", (1,)),
}
"""What a verb is about, in words and as a number of ids."""

_UNBUILT_VERBS = {
    "prune": "Space is freed by itself after each snapshot. To drop one: %snapshots forget ID",
}

CHECKPOINT_HELP = f"""Make a snapshot of this notebook's variables; with every=, go on making them, also inside cells.

    %checkpoint_vars                          a snapshot now, durable when the line returns
    %checkpoint_vars model opt                the same; these names must be in it (patterns like model* too)
    %checkpoint_vars model opt every=5m       and from now on a new one, also inside cells, at most every 5 minutes
    %%checkpoint_vars every=2m                the same for this one cell, which follows below the line
    %checkpoint_vars --check                  a snapshot now, and the proof that it loads and is what you have

A snapshot holds every variable that can be saved, unless --only is said. `every=5m`, `--every 5m` and `-e 5m` are
the same; a bare word is always a variable's name. Said again, names are added and settings replaced. `--check` loads
the snapshot in a fresh Python process and compares: what pickles and does not load, or loads as something else, shows.

{_CHECKPOINT.manual()}

Example:

    In [1]: %load_ext ipyrescue
    In [2]: weights, history = [0.5, 0.25], []
    In [3]: %checkpoint_vars weights history label=start
    In [4]: %checkpoint_vars weights every=5m keep=5 -x "tmp_*"
    In [5]: %checkpoint_vars --status
    In [6]: %checkpoint_vars --off
    In [7]: %checkpoint_vars --check
"""

RESTORE_HELP = f"""Bring a snapshot's variables back.

    %restore_vars                             everything, from the kernel of this notebook that died last
    %restore_vars model opt from=3f9c         some names, from the snapshot whose id begins so; patterns like loss* too
    %restore_vars model opt from=3f9c as=old_ the same beside yours, as old_model and old_opt
    %restore_vars device=cpu                  everything, with the tensors of every GPU on the CPU
    %restore_vars from=3f9c --safe            only what needs no unpickling, whoever made that snapshot

Without from=, the newest consistent snapshot of the kernel that died is taken, else the newest of this notebook. If
automatic snapshots were on when it was made, they are on again. Either all is bound or nothing. With as= nothing of
yours is touched: functions that come back find the globals that came with them, then yours; random streams stay.
What a restore replaces stays in memory, so that `--undo` can bring it back, until the next one.

{_RESTORE.manual()}

Example:

    In [1]: %load_ext ipyrescue
    In [2]: weights = [0.5, 0.25]
    In [3]: %checkpoint_vars label=good
    In [4]: weights = None
    In [5]: %restore_vars --list
    In [6]: %restore_vars weights from=good --dry-run
    In [7]: %restore_vars weights from=good
    In [8]: assert weights == [0.5, 0.25]
    In [9]: %restore_vars --undo
    In [10]: assert weights is None
"""

SNAPSHOTS_HELP = f"""Show the snapshots of this notebook, newest first, and look after them.

    %snapshots                                the table
    %snapshots show 3f9c                      one of them: what it holds, and what it left out
    %snapshots show 3f9c --code               the cells that had been run by then, without passwords and tokens
    %snapshots diff 3f9c 4d21                 what is added, removed, changed between two; without the second, up to
                                              the latest, without both, since the one before the latest
    %snapshots pin 3f9c                       keep it until `%snapshots unpin 3f9c`, however many newer ones there are
    %snapshots forget 3f9c                    drop it, and free what no other one needs; not one that is pinned

{_SNAPSHOTS.manual()}

Example:

    In [1]: %load_ext ipyrescue
    In [2]: answer = 42
    In [3]: %checkpoint_vars label=first
    In [4]: %snapshots
    In [5]: %snapshots show first
    In [6]: %snapshots pin first
    In [7]: answer = 43
    In [8]: %checkpoint_vars
    In [9]: %snapshots diff first
"""
