"""Lines of the three magics, as tables."""

import re

import pytest
from IPython.core.error import UsageError

from ipyrescue.kernel import arguments
from ipyrescue.kernel.arguments import (
    CheckpointArguments,
    RestoreArguments,
    SnapshotsArguments,
    parse_checkpoint,
    parse_restore,
    parse_snapshots,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("model opt", {"names": ("model", "opt")}),
        ("model, opt,sched", {"names": ("model", "opt", "sched")}),
        ("model model", {"names": ("model",)}),
        ("model_* [a-c]? größe", {"names": ("model_*", "[a-c]?", "größe")}),
        ("model every=5m", {"names": ("model",), "every_seconds": 300.0}),
        ("model --every 5m", {"names": ("model",), "every_seconds": 300.0}),
        ("model --every=5m", {"names": ("model",), "every_seconds": 300.0}),
        ("-e 5m model", {"names": ("model",), "every_seconds": 300.0}),
        ("every=90", {"every_seconds": 90.0}),
        ("keep=5 max_size=20GB", {"keep": 5, "max_size_bytes": 20_000_000_000}),
        ("--keep 5 --max-size 2GiB", {"keep": 5, "max_size_bytes": 2 << 30}),
        ("label=before-lr", {"label": "before-lr"}),
        ("label='before lr'", {"label": "before lr"}),
        ("model --only", {"names": ("model",), "only": True}),
        ("-x tmp_* --exclude cache,log", {"exclude": ("tmp_*", "cache", "log")}),
        ("--allow api_key --allow=token", {"allow": ("api_key", "token")}),
        ("--off", {"off": True}),
        ("model --check every=5m", {"names": ("model",), "check": True, "every_seconds": 300.0}),
        ("--off opt sched", {"off": True, "off_names": ("opt", "sched")}),
        ("--status --json", {"status": True, "json": True}),
        ("-n", {"dry_run": True}),
        ("--dry_run", {"dry_run": True}),
        ("off", {"names": ("off",)}),
    ],
)
def test_checkpoint_lines(line, expected):
    """A bare word is always a variable's name; what was not said is None."""
    assert parse_checkpoint(line) == CheckpointArguments(**expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("model opt from=3f9c", {"names": ("model", "opt"), "source": "3f9c"}),
        ("from=latest~2", {"source": "latest~2"}),
        ("--from before-lr", {"source": "before-lr"}),
        ("--list", {"list": True}),
        ("-l -a", {"list": True, "all": True}),
        ("-n --keep-existing", {"dry_run": True, "keep_existing": True}),
        ("model device=cpu", {"names": ("model",), "device": "cpu"}),
        ("--device cpu", {"device": "cpu"}),
        ("model --force --keep-classes", {"names": ("model",), "force": True, "keep_classes": True}),
        ("--undo --json", {"undo": True, "json": True}),
        ("--forget-undo", {"forget_undo": True}),
        ("model* as=old_", {"names": ("model*",), "prefix": "old_"}),
        ("model from=3f9c --safe as=old_", {"names": ("model",), "source": "3f9c", "safe": True, "prefix": "old_"}),
        ("from=3f9c --trust --json", {"source": "3f9c", "trust": True, "json": True}),
    ],
)
def test_restore_lines(line, expected):
    assert parse_restore(line) == RestoreArguments(**expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("list --all", {"all": True}),
        ("--json", {"json": True}),
        ("show 3f9c", {"verb": "show", "ids": ("3f9c",)}),
        ("show latest~1", {"verb": "show", "ids": ("latest~1",)}),
        ("forget 3f9c", {"verb": "forget", "ids": ("3f9c",)}),
        ("pin 3f9c", {"verb": "pin", "ids": ("3f9c",)}),
        ("unpin before-lr", {"verb": "unpin", "ids": ("before-lr",)}),
        ("diff", {"verb": "diff"}),
        ("diff 3f9c --json", {"verb": "diff", "ids": ("3f9c",), "json": True}),
        ("diff latest~2 4d21", {"verb": "diff", "ids": ("latest~2", "4d21")}),
    ],
)
def test_snapshots_lines(line, expected):
    assert parse_snapshots(line) == SnapshotsArguments(**expected)


@pytest.mark.parametrize(
    ("parse", "line", "told"),
    [
        (parse_checkpoint, "model every = 5m", "Write `every=5m` without spaces"),
        (parse_checkpoint, "every =5m", "Write `every=5m` without spaces"),
        (parse_checkpoint, "every= 5m", "Write `every=5m`, without spaces"),
        (parse_checkpoint, "--every", "Write `every=5m`"),
        (parse_checkpoint, "= 5m", "without spaces"),
        (parse_checkpoint, "every=often", "30s, 5m, 1h30m"),
        (parse_checkpoint, "every=-5m", "30s, 5m, 1h30m"),
        (parse_checkpoint, "keep=0", "like 10"),
        (parse_checkpoint, "max_size=big", "500MB, 2GiB"),
        (parse_checkpoint, "evry=5m", "Did you mean `every=5m`?"),
        (parse_checkpoint, "--kep 5", "Did you mean `keep=10`?"),
        (parse_checkpoint, "--statsu", "Did you mean `--status`?"),
        (parse_checkpoint, "-every 5m", "Did you mean `every=5m`?"),
        (parse_checkpoint, "-z", "All of them: %checkpoint_vars?"),
        (parse_checkpoint, "-", "checkpoint_vars"),
        (parse_checkpoint, "quux=1", "All of them: %checkpoint_vars?"),
        (parse_checkpoint, "every=5m every=2m", "said twice"),
        (parse_checkpoint, "--off=yes", "takes no value"),
        (parse_checkpoint, "only=1", "Write `--only`"),
        (parse_checkpoint, "label='before lr", "quote is never closed"),
        (parse_checkpoint, "cfg.lr", "Only whole variables can be named: cfg"),
        (parse_checkpoint, "cfg['lr']", "Only whole variables can be named: cfg"),
        (parse_checkpoint, "3f9c", "no variable name"),
        (parse_checkpoint, "-x a.b", "no pattern"),
        (parse_checkpoint, "label=latest", "taken for something else"),
        (parse_checkpoint, "label=@10:42", "taken for something else"),
        (parse_checkpoint, "--off every=5m", "do not go together"),
        (parse_checkpoint, "--status model", "do not go together"),
        (parse_checkpoint, "--status every=5m", "do not go together"),
        (parse_checkpoint, "--status --check", "do not go together"),
        (parse_checkpoint, "--check --dry-run", "do not go together"),
        (parse_checkpoint, "--chek", "Did you mean `--check`?"),
        (parse_checkpoint, "steps=500", "`steps=` is not built yet"),
        (parse_checkpoint, "to=s3://bucket", "`to=` is not built yet"),
        (parse_checkpoint, "tag=x", "label=before-lr"),
        (parse_checkpoint, "-r", "%restore_vars"),
        (parse_restore, "as=old-", "Write it like old_"),
        (parse_restore, "as=_i", "Write it like old_"),
        (parse_restore, "as=", "Write `as=old_`"),
        (parse_restore, "into=d", "ipyrescue.restore(into=found)"),
        (parse_restore, "device=cuda", "Write device=cpu"),
        (parse_restore, "device=CPU", "Write device=cpu"),
        (parse_restore, "device=", "Write `device=cpu`"),
        (parse_restore, "devise=cpu", "Did you mean `device=cpu`?"),
        (parse_snapshots, "pin 3f9c --code", "goes with `show`"),
        (parse_restore, "--undo model", "`--undo` and `names` do not go together"),
        (parse_restore, "--undo from=3f9c", "`--undo` and `from` do not go together"),
        (parse_restore, "--forget-undo --dry-run", "`--forget-undo` and `dry-run` do not go together"),
        (parse_restore, "--keep-class", "Did you mean `--keep-classes`?"),
        (parse_restore, "from=@10:42", "not built yet"),
        (parse_restore, "from=latest-2", "Write latest, or latest~2"),
        (parse_restore, "from=", "needs a value"),
        (parse_restore, "3f9c", "from=3f9c"),
        (parse_restore, "--all", "goes with `--list`"),
        (parse_restore, "--trust", "from=ID"),
        (parse_restore, "from=3f9c --safe --trust", "`--safe` and `trust` do not go together"),
        (parse_restore, "--safe --force", "`--safe` and `force` do not go together"),
        (parse_restore, "form=3f9c", "Did you mean `from=3f9c`?"),
        (parse_snapshots, "diff 3f9c 4d21 5e22", "takes at most two ids"),
        (parse_snapshots, "diff 3f9c latest-2", "Write latest, or latest~2"),
        (parse_snapshots, "pin", "takes one id"),
        (parse_snapshots, "unpin a b", "takes one id"),
        (parse_snapshots, "dif 3f9c", "Did you mean `%snapshots diff`?"),
        (parse_snapshots, "pn 3f9c", "Did you mean `%snapshots pin`?"),
        (parse_snapshots, "prune", "%snapshots forget ID"),
        (parse_snapshots, "3f9c", "%snapshots show 3f9c"),
        (parse_snapshots, "delete 3f9c", "list, show, diff, pin, unpin, forget are"),
        (parse_snapshots, "show", "takes one id"),
        (parse_snapshots, "forget a b", "takes one id"),
        (parse_snapshots, "list 3f9c", "takes no id"),
        (parse_snapshots, "show @10:42", "not built yet"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line_that_helps(parse, line, told):
    """Nothing is accepted in silence; what is to come says what to type until then."""
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        parse(line)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parse"),
    [
        (arguments.CHECKPOINT_HELP, parse_checkpoint),
        (arguments.RESTORE_HELP, parse_restore),
        (arguments.SNAPSHOTS_HELP, parse_snapshots),
    ],
)
def test_a_manual_explains_each_option_and_its_example_is_understood(text, parse):
    magics = {"checkpoint_vars": parse_checkpoint, "restore_vars": parse_restore, "snapshots": parse_snapshots}
    lines = re.findall(r"^    In \[\d+\]: (.*)$", text, re.MULTILINE)
    understood = [
        magics[name](rest) for name, rest in re.findall(r"^%(\w+) ?(.*)$", "\n".join(lines), re.M) if name in magics
    ]

    assert any(type(found) is type(parse("")) for found in understood)
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("grammar", [arguments._CHECKPOINT, arguments._RESTORE, arguments._SNAPSHOTS])
def test_options_are_not_ambiguous(grammar):
    names = [option.name for option in grammar.options] + list(grammar.unbuilt)
    shorts = [option.short for option in grammar.options if option.short]

    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)
