"""`ipyrescue key`: shows keys without telling them, changes them without losing one."""

import json
import os
import stat

import pytest
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.cli.exits import Exit
from ipyrescue.store import Store, keyring, signing
from ipyrescue.store.signing import Key
from tests.cli.test_verbs import foreign, run, run_json


@pytest.fixture(autouse=True)
def key_file(tmp_path, monkeypatch):
    """The key of these tests; nothing is there yet."""
    path = tmp_path / "keys of mine" / "key"
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(path))
    return path


@pytest.fixture
def their_file(tmp_path):
    path = tmp_path / "brought.key"
    path.write_bytes(b"t" * 32)
    path.chmod(0o600)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_show_says_what_each_key_signed_and_tells_no_secret(make, store, other_key, key_file):
    old, first = signing.load_key(), make()
    run("key", "new")
    second = make(into=Store.open(store.root, signing.load_key()))
    theirs = foreign(store, other_key, make)
    new = signing.load_key()

    result, document = run_json("key", "show")
    text = run("key", "show").stdout

    assert result.exit_code == Exit.OK
    assert document["key"] == {
        "path": str(key_file), "fingerprint": new.fingerprint, "owner": document["key"]["owner"], "uid": os.geteuid(),
        "gid": os.getegid(), "mode": "600", "shared": False, "refusal": None, "snapshots": [second.id],
    }  # fmt: skip
    assert [(one["fingerprint"], one["snapshots"]) for one in document["older"]] == [(old.fingerprint, [first.id])]
    assert document["foreign"] == [{"fingerprint": other_key.fingerprint, "snapshots": [theirs.id]}]
    assert document["store"] == str(store.root)
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        [new.fingerprint, "signs"], [old.fingerprint, "reads"], [other_key.fingerprint, "foreign"],
    ]  # fmt: skip
    for key in (old, new):
        for told in (text, result.stdout):
            assert key.secret.hex() not in told
            assert repr(key.secret)[2:-1] not in told


def test_show_without_key_or_store(tmp_path, key_file):
    result, document = run_json("key", "show")

    assert (result.exit_code, document["key"], document["store"], document["older"]) == (Exit.OK, None, None, [])
    assert "the first snapshot makes it" in run("key", "show").stderr
    assert not key_file.parent.exists()
    assert run("key", "show", "--store", tmp_path / "nowhere").exit_code == Exit.NOT_FOUND


def test_show_says_why_a_key_is_not_used(key_file):
    signing.load_key(create=True)
    key_file.chmod(0o644)

    result, document = run_json("key", "show")

    assert result.exit_code == Exit.UNTRUSTED
    assert "chmod 600" in document["key"]["refusal"]
    assert document["key"]["fingerprint"] is None
    assert "is not used" in run("key", "show").stderr


def test_show_exports_on_request_and_never_over_a_file(key_file, tmp_path):
    key = signing.load_key(create=True)
    copy = tmp_path / "copy.key"

    assert run("key", "show", "--export", copy).exit_code == Exit.OK

    assert (copy.read_bytes(), mode(copy)) == (key.secret, 0o600)
    copy.write_bytes(b"something else")
    assert run("key", "show", "--export", copy).exit_code == Exit.FAILED
    assert copy.read_bytes() == b"something else"


def test_new_signs_with_a_new_key_and_keeps_the_old(make, store, key_file):
    snapshot, old = make(), signing.load_key()

    result, document = run_json("key", "new")

    assert result.exit_code == Exit.OK
    assert document["key"]["fingerprint"] == signing.load_key().fingerprint != old.fingerprint
    assert document["store"] is None
    assert run("show", snapshot.id).exit_code == Exit.OK
    assert run("verify", "--read-data").exit_code == Exit.OK


def test_retention_prune_pins_and_export_take_old_keys_snapshots_as_ours(make, store, tmp_path):
    """Two of them are forgotten by policy, one is pinned, one is exported."""
    snapshots = [make(data=bytes([n]) * 4096) for n in range(4)]
    run("key", "new")

    assert run("verify", "--read-data").exit_code == Exit.OK
    assert run("pin", snapshots[0].id).exit_code == Exit.OK
    assert run("export", snapshots[3].id, "-o", tmp_path / "out").exit_code == Exit.OK
    assert run("forget", snapshots[1].id).exit_code == Exit.OK
    assert run("prune").exit_code == Exit.OK

    assert [entry["state"] for entry in run_json("ls")[1]["snapshots"]] == ["ok"] * 3


@pytest.mark.parametrize("sign", [False, True])
def test_import_takes_another_machines_snapshots_over(store, make, their_file, sign, key_file):
    theirs = foreign(store, Key(b"t" * 32), make)
    own = signing.load_key()
    assert run("show", theirs.id).exit_code == Exit.UNTRUSTED

    result, document = run_json("key", "import", their_file, *(["--sign"] if sign else []))

    assert result.exit_code == Exit.OK
    assert run("show", theirs.id).exit_code == Exit.OK
    expected = Key(b"t" * 32, (own,)) if sign else Key(own.secret, (Key(b"t" * 32),))
    assert signing.load_key() == expected
    assert document["key"]["fingerprint"] == Key(b"t" * 32).fingerprint
    assert document["key"]["path"] == str(key_file if sign else keyring.ring(key_file) / Key(b"t" * 32).fingerprint)


def test_import_without_a_key_makes_one_to_sign_with(their_file):
    run("key", "import", their_file)

    key = signing.load_key()
    assert key.secret != b"t" * 32
    assert key.older == (Key(b"t" * 32),)


def test_import_reads_standard_input(their_file, key_file):
    """As in `ssh there cat key | ipyrescue key import -`, so that no copy lies around."""
    ended = CliRunner().invoke(app, ["key", "import", "-", "--sign"], input=b"t" * 32)

    assert ended.exit_code == Exit.OK
    assert key_file.read_bytes() == b"t" * 32


@pytest.mark.parametrize("kind", ["short", "long", "link", "pipe", "folder", "missing"])
def test_import_refuses_what_is_no_key(tmp_path, kind, key_file):
    file = tmp_path / "it"
    if kind == "link":
        (tmp_path / "target").write_bytes(b"t" * 32)
        file.symlink_to(tmp_path / "target")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind != "missing":
        file.write_bytes(b"t" * (31 if kind == "short" else 33))

    assert run("key", "import", file).exit_code == (Exit.FAILED if kind == "missing" else Exit.UNTRUSTED)
    assert not key_file.exists()


def test_import_says_that_others_could_have_read_it(their_file):
    their_file.chmod(0o644)

    assert "Others could read" in run("key", "import", their_file).stderr


def test_a_shared_key_and_a_shared_store_in_one_line(tmp_path, key_file):
    gid = os.getegid()

    result, document = run_json("key", "new", "--shared-group", gid, "--store", tmp_path / "store")

    assert result.exit_code == Exit.OK, result.stderr
    assert (mode(key_file), mode(key_file.parent)) == (0o640, 0o2750)
    assert document["key"]["shared"]
    assert {mode(p) for p in [tmp_path / "store", *(tmp_path / "store").iterdir()] if p.is_dir()} == {0o2770}
    assert "each member" in run("key", "show").stderr
    again = run_json("key", "new", "--shared-group", gid)[1]
    assert again["key"]["fingerprint"] == document["key"]["fingerprint"]  # it is shared already
    rotated = run_json("key", "new")[1]["key"]
    assert (rotated["shared"], mode(keyring.ring(key_file) / document["key"]["fingerprint"])) == (True, 0o640)
    assert signing.load_key().older


def test_a_private_key_that_becomes_shared_stays_private(key_file):
    """Whoever held it would sign as its owner."""
    old = signing.load_key(create=True)

    run("key", "new", "--shared-group", os.getegid())

    assert signing.load_key().older == (old,)
    assert mode(keyring.ring(key_file) / old.fingerprint) == 0o600


@pytest.mark.parametrize("reason", ["no path", "other things", "no group", "store alone"])
def test_what_is_not_shared_and_why(reason, tmp_path, key_file, monkeypatch):
    if reason == "no path":
        monkeypatch.delenv("IPYRESCUE_KEY_FILE")
    if reason == "other things":
        key_file.parent.mkdir()
        (key_file.parent / "thesis.tex").write_text("")
    words = {"no group": ["--shared-group", "no-such-group"], "store alone": ["--store", "s"]}

    result = run("key", "new", *words.get(reason, ["--shared-group", os.getegid()]))

    said = {"no path": "IPYRESCUE_KEY_FILE=", "other things": "thesis.tex", "no group": "no-such-group"}
    assert result.exit_code == (Exit.USAGE if reason in ("no group", "store alone") else Exit.FAILED)
    assert said.get(reason, "--shared-group") in result.stderr
    assert not key_file.exists()


@pytest.mark.parametrize("verb", ["show", "new", "import"])
def test_help(verb):
    text = run("key", verb, "--help").stdout

    assert "--json" in text
    assert f"\n  {verb} " in run("key", "--help").stdout


def test_errors_as_json(key_file):
    key_file.parent.write_text("a file where the folder should be")

    result = run("key", "new", "--json")

    assert (result.exit_code, json.loads(result.stderr)["error"]["type"]) == (Exit.FAILED, "StoreError")
