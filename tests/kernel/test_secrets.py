"""A credential is in no file of a store, however a session came to have it: every byte is looked through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kernels import Kernel

from ipyrescue.pickling.encode import decompress
from ipyrescue.store import Store, signing

MakeKernel = Callable[..., Kernel]
KEY = "sk-" + "a1B2" * 8
PASSWORD = "hunter2-and-more"


def test_a_credential_is_nowhere_in_the_store(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Not as a value, in a container, in a cell, in the source of a function, in a reason, in a life record."""
    kernel = make_kernel()
    kernel.run(f"early = '{KEY}'")
    kernel.run("%load_ext ipyrescue")
    kernel.run("%checkpoint_vars every=0.001s")
    kernel.run(f"client_config = {{'api_key': '{PASSWORD}', 'lr': 0.1}}\nurls = ['postgres://me:{PASSWORD}@host/db']")
    kernel.run(f"header = {{'Authorization': f'Bearer {KEY}'}}; password = b'{PASSWORD}'")
    kernel.run(f"def connect(key):\n    # password = '{PASSWORD}'\n    return key")
    kernel.run(f"class Client:\n    # {KEY}\n    def get(self): return 1\nclient = Client()")
    (tmp_path / "said").write_text(KEY)
    kernel.run("class Raises:\n    def __reduce__(self): raise ValueError(open('said').read())\nraises = Raises()")
    (tmp_path / "said").write_text(f"no, password: {PASSWORD}")
    kernel.try_run(f"raise ValueError('{KEY} was refused')")
    kernel.try_run(f"raise ValueError(\"password='{PASSWORD}' was refused\")")
    kernel.run(f"%env DB_PASSWORD={PASSWORD}")
    kernel.run("kept = 1\n%checkpoint_vars kept")
    kernel.begin(f"print('going'); import time; time.sleep(60)  # {KEY}")
    kernel.wait_for_output("going")
    kernel.kill()
    after = make_kernel()
    after.run("%load_ext ipyrescue")
    told = after.run("%restore_vars").text
    after.run("%unload_ext ipyrescue")  # it is armed again, and a snapshot may be on its way

    left_out = {name for name, reason in skipped(tmp_path) if "--allow" in reason}
    assert left_out == {"early", "client_config", "urls", "header", "password"}
    assert {reason for name, reason in skipped(tmp_path) if name == "raises"} == {
        "Raises: what it said may show a secret"
    }
    looked_at = list(texts(tmp_path))
    assert any(b"def connect" in text for text in looked_at)
    assert [text for text in looked_at if KEY.encode() in text or PASSWORD.encode() in text] == []
    assert KEY not in told
    assert PASSWORD not in told


def skipped(folder: Path) -> list[tuple[str, str]]:
    return [(s.name, s.reason) for snapshot in store(folder).snapshots() for s in snapshot.skipped]


def store(folder: Path) -> Store:
    return Store.open(folder / ".ipyrescue", signing.load_key())


def texts(folder: Path) -> Iterator[bytes]:
    """Every file of the store, and the streams of every snapshot as they are unpickled."""
    found = store(folder)
    yield from (path.read_bytes() for path in (folder / ".ipyrescue").rglob("*") if path.is_file())
    for snapshot in found.snapshots():
        yield from (cell.source.encode() for cell in found.cells(snapshot))
        for group in snapshot.groups:
            refs = [snapshot.blobs[i] for i in group.stream.blobs]
            parts = [bytearray(ref.size_bytes) for ref in refs]
            found.get(refs, [memoryview(part) for part in parts])
            yield decompress(group.stream, b"".join(parts))
