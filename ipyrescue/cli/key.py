"""`ipyrescue key`: the keys that sign and check snapshots. Prints no secret; `show --export` copies one on request."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli.entries import DEFAULT_FOLDER, open_store
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import Column, printable, say, write, write_json, write_table
from ipyrescue.cli.verb import JsonOption, StoreOption, Verb, finish
from ipyrescue.errors import CorruptError, RescueError, StoreError, UntrustedError
from ipyrescue.store import Store, atomic, keyring, sharing, signing
from ipyrescue.store.keyring import KEY_BYTES, KeyFile

app = typer.Typer(
    name="key",
    help="Show, change and take over the keys that sign snapshots.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COLUMNS = (
    Column("FINGERPRINT"),
    Column("USE"),
    Column("OWNER"),
    Column("MODE", right=True),
    Column("SNAPSHOTS", right=True),
    Column("PATH", fold=True),
)
_FOREIGN = "not here; take it over with `ipyrescue key import FILE`"

Signed = dict[str, list[str]]
"""Fingerprints to the ids of the snapshots that bear their signature."""


@app.command("show", cls=Verb)
def show(
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="FILE", help="Copy the key that signs to this new file, readable by you only."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which key signs, which older ones read, and what each signed in the store, if there is one here.

    A secret is never printed. Whoever has one can make snapshots that run code when you restore them.

    Exit code 5: a key is there that is not used; it is said why.

    \b
    --json prints {"key", "older", "foreign", "store", "exported"};
      key, older  {"path", "fingerprint", "owner", "uid", "gid", "mode", "shared", "refusal", "snapshots"}
      foreign     [{"fingerprint", "snapshots"}]: signed with keys that are not here
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    path = signing.key_path()
    opened = _store_here(store)
    signed = _signed(opened) if opened is not None else None
    key, older = _look(path), keyring.older(path)
    if export is not None:
        _export(path, export)
    if as_json:
        write_json(_document(key, older, opened, signed, export))
    else:
        _tell(path, key, older, signed, export)
    finish(Exit.UNTRUSTED if any(one.refusal for one in (*older, *([key] if key else []))) else Exit.OK)


@app.command("new", cls=Verb)
def new(
    group: Annotated[
        str | None,
        typer.Option("--shared-group", metavar="GROUP", help="Make a key that the members of this group read."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="PATH", help="With --shared-group: open this store to the group too."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign with a new key from now on; the old one stays in keys/ beside it, and what it signed stays yours.

    Kernels that run take the new key with their next snapshot. To no longer trust what the old key signed, delete its
    file in keys/.

    A key that a group shares stands in a folder of its own, which IPYRESCUE_KEY_FILE names; one that is there already
    is kept. Each member unpickles what any other member signed: a group is one domain of trust.

    --json prints {"key", "store"}, the key as in `ipyrescue key show`.
    """
    if store is not None and group is None:
        raise typer.BadParameter("--store opens a store to a group: name it with --shared-group GROUP.")
    path = signing.key_path()
    if group is None:
        key = keyring.renew(path)
    else:
        gid = _gid(group)
        key = keyring.share(_named(path), gid)
        if store is not None:
            sharing.share(store.absolute(), gid)
    if as_json:
        write_json({"key": _described(key, None), "store": str(store.absolute()) if store else None})
        return
    write(printable(f"Snapshots are signed with key {key.fingerprint} now: {path}"))
    if group is not None:
        say(f"Each member of {group} sets IPYRESCUE_KEY_FILE={path} and unpickles what any other member signed.")
    if store is not None:
        write(printable(f"The members of {group} write to {store.absolute()}"))


@app.command("import", cls=Verb)
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A key file of another machine; - reads it from stdin.")],
    sign: Annotated[bool, typer.Option("--sign", help="Also sign with it from now on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take over another machine's key: what it signed is yours to list, restore, keep and prune.

    So import no key of somebody whom you do not trust: restoring what it signed runs code of theirs.

    --json prints {"key"}, as in `ipyrescue key show`.
    """
    secret = _secret(file)
    path = signing.key_path()
    if sign:
        keyring.put_first(path, secret)
        there = path
    else:
        signing.load_key(path, create=True)
        there = path if keyring.read(path) == secret else keyring.add(path, secret)
    key = keyring.look(there)
    if as_json:
        write_json({"key": _described(key, None)})
        return
    also = ", and it signs" if there == path else ""
    write(printable(f"Snapshots of key {key.fingerprint} are yours now{also}: {there}"))


def _look(path: Path) -> KeyFile | None:
    try:
        return keyring.look(path)
    except FileNotFoundError:
        return None


def _named(path: Path) -> Path:
    """The key's path, if it was said: a home folder is no place for what a group shares. Raises StoreError."""
    if os.environ.get("IPYRESCUE_KEY_FILE"):
        return path.absolute()
    raise StoreError(
        "A key that a group shares stands in a folder of its own that its members can enter. Say where: "
        "IPYRESCUE_KEY_FILE=/srv/TEAM/ipyrescue-key/key ipyrescue key new --shared-group GROUP"
    )


def _gid(group: str) -> int:
    """The number of a group, by its name or in digits. Raises BadParameter."""
    if sys.platform == "win32":
        raise StoreError("There are no groups of this kind on Windows.")
    import grp

    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise typer.BadParameter(f"there is no group {group!r} on this machine.") from None


def _secret(file: str) -> bytes:
    """The bytes of a key file, whoever owns it: a person named it. Raises UntrustedError, StoreError."""
    if file == "-":
        secret = sys.stdin.buffer.read(KEY_BYTES + 1)
    else:
        try:
            fd, status = atomic.open_regular(Path(file))
        except FileNotFoundError:
            raise RescueError(f"There is no file {file}.") from None
        except CorruptError:
            raise UntrustedError(f"{file} is a link or not a plain file, so it is no key.") from None
        with open(fd, "rb") as opened:
            secret = opened.read(KEY_BYTES + 1)
        if status.st_mode & 0o077 and sys.platform != "win32":
            mode = stat.S_IMODE(status.st_mode)
            say(f"Others could read {file} (mode {mode:03o}): whoever did can make snapshots that you would trust.")
    if len(secret) != KEY_BYTES:
        raise UntrustedError(f"{file} does not have {KEY_BYTES} bytes, so it is no key.")
    return secret


def _export(path: Path, file: Path) -> None:
    """Copy the key to a file that must not exist. Raises StoreError, UntrustedError."""
    secret = signing.load_key(path).secret
    try:
        atomic.publish(file.absolute().parent, file.absolute(), secret, mode=0o600)
    except OSError as error:
        raise StoreError(f"The key was not copied to {file}: {error.strerror}. Name a new file.") from error


# --- what each key signed -----------------------------------------------------------------------------------------


def _store_here(store: Path | None) -> Store | None:
    """The store that was named, or ./.ipyrescue if that is one. Raises NoStoreError, StoreError."""
    if store is None and not (Path(DEFAULT_FOLDER) / "format.json").exists():
        return None
    return open_store(store, need_key=False)


def _signed(store: Store) -> Signed:
    """By fingerprint; what is damaged bears nobody's signature."""
    unusable = {item.name: item.error for item in store.unreadable()}
    found: Signed = {}
    for name in store.catalog.names():
        if isinstance(unusable.get(name, UntrustedError()), UntrustedError):
            found.setdefault(store.catalog.body(name)[0].fingerprint, []).append(name[11:27])
    return found


def _foreign(key: KeyFile | None, older: list[KeyFile], signed: Signed) -> Signed:
    here = {one.fingerprint for one in (*older, *([key] if key else []))}
    return {fingerprint: ids for fingerprint, ids in signed.items() if fingerprint not in here}


# --- words --------------------------------------------------------------------------------------------------------


def _document(
    key: KeyFile | None, older: list[KeyFile], store: Store | None, signed: Signed | None, export: Path | None
) -> dict[str, Any]:
    foreign = _foreign(key, older, signed or {})
    return {
        "key": _described(key, signed) if key else None,
        "older": [_described(one, signed) for one in older],
        "foreign": [{"fingerprint": fingerprint, "snapshots": ids} for fingerprint, ids in foreign.items()],
        "store": str(store.root) if store else None,
        "exported": str(export) if export else None,
    }


def _described(key: KeyFile, signed: Signed | None) -> dict[str, Any]:
    return {
        "path": str(key.path),
        "fingerprint": key.fingerprint,
        "owner": _owner(key),
        "uid": key.uid,
        "gid": key.gid,
        "mode": _mode(key) or None,
        "shared": key.shared,
        "refusal": key.refusal,
        "snapshots": signed.get(key.fingerprint or "", []) if signed is not None else None,
    }


def _tell(path: Path, key: KeyFile | None, older: list[KeyFile], signed: Signed | None, export: Path | None) -> None:
    keys = [*([key] if key else []), *older]
    rows = [_row(one, "signs" if one is key else "reads", signed) for one in keys]
    foreign = _foreign(key, older, signed or {})
    rows += [(fingerprint, "foreign", "", "", str(len(ids)), _FOREIGN) for fingerprint, ids in foreign.items()]
    if rows:
        write_table(_COLUMNS, rows, marked=[bool(one.refusal) for one in keys])
    if key is None:
        say(f"There is no key at {path} yet: the first snapshot makes it.")
    for one in keys:
        if one.refusal:
            say(f"{one.path} {one.refusal}, so it is not used.")
    if key is not None and key.shared:
        say(f"Group {_group(key)} shares the key: each member unpickles what any other member signed.")
    if export is not None:
        say(
            f"The key was copied to {export}. Whoever has it can make snapshots that you would trust; see `key import`."
        )
    if signed is None:
        say("There is no store here; --store PATH says what each key signed there.")


def _row(key: KeyFile, use: str, signed: Signed | None) -> tuple[str, ...]:
    signs = str(len(signed.get(key.fingerprint or "", []))) if signed is not None else ""
    name, use = key.fingerprint or "?", "refused" if key.refusal else use
    return name, use, _owner(key) or "?", _mode(key), signs, str(key.path)


def _mode(key: KeyFile) -> str:
    return f"{key.mode:03o}" if key.mode is not None else ""


def _owner(key: KeyFile) -> str | None:
    if key.uid is None or sys.platform == "win32":
        return None
    import pwd

    try:
        return pwd.getpwuid(key.uid).pw_name
    except KeyError:
        return f"uid {key.uid}"


def _group(key: KeyFile) -> str:
    if key.gid is None or sys.platform == "win32":
        return "?"
    import grp

    try:
        return grp.getgrgid(key.gid).gr_name
    except KeyError:
        return str(key.gid)
