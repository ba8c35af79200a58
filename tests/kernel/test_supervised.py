"""What a runner asks of its kernel, by silent requests: real kernels, killed in the middle of a loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels import REPLY_SECONDS

from ipyrescue.manifest import PROGRESS, Snapshot
from ipyrescue.store import Store, layout, lives, signing

if TYPE_CHECKING:
    from kernels import Kernel

ASK = '__import__("ipyrescue.kernel.supervised", fromlist=["begin"]).{}'
LOOP = """
import time, ipyrescue
for epoch in ipyrescue.loop(range(200), name="train"):
    done.append(epoch)
    print("epoch", epoch)
    if slow:
        time.sleep(0.05)
"""


def ask(kernel: Kernel, call: str) -> dict[str, Any]:
    """Evaluate a call of `supervised` as a runner does; nothing but the reply may come of it."""
    heard: list[str] = []
    reply = kernel.client.execute_interactive(
        "",
        silent=True,
        store_history=False,
        user_expressions={"answer": ASK.format(call)},
        timeout=REPLY_SECONDS,
        output_hook=lambda message: heard.append(message["msg_type"]),
    )
    said = reply["content"]["user_expressions"]["answer"]
    assert set(heard) == {"status"}
    assert said["status"] == "ok", said
    return json.loads(said["data"]["text/plain"])


def names(kernel: Kernel) -> set[str]:
    return set(kernel.value("list(globals())"))


def newest(root: Path) -> Snapshot:
    return Store.open(root, signing.load_key()).snapshots()[0]


def test_a_killed_kernel_goes_on_in_the_middle_of_its_loop(
    make_kernel: Callable[..., Kernel], store_root: Path
) -> None:
    kernel = make_kernel()
    before = names(kernel)
    begun = ask(kernel, "begin(0.2)")
    assert begun == {"ok": True, "incarnation": begun["incarnation"], "store": str(store_root)}
    assert names(kernel) <= before

    kernel.run("done, slow, generator = [], True, (i for i in ())")
    first = ask(kernel, "cell_done()")
    assert (first["incarnation"], first["lost"]) == (begun["incarnation"], [])
    (skipped,) = first["skipped"]
    assert skipped.startswith("generator (")
    assert len(list((store_root / "snapshots").iterdir())) == 1
    kernel.begin(LOOP)
    deadline = time.monotonic() + REPLY_SECONDS
    while newest(store_root).cut == "cell_end" and time.monotonic() < deadline:
        time.sleep(0.02)
    kernel.kill()

    kernel = make_kernel(IPYRESCUE_ON_DEATH="restore")
    assert ask(kernel, "begin(5)")["ok"]
    told = kernel.run("%load_ext ipyrescue", store_history=True)  # as the first cell of many notebooks does
    assert "snapshots there" in told.text
    before = names(kernel)
    assert "done" not in before
    inside = newest(store_root)
    assert inside.sequence > first["sequence"]
    assert PROGRESS in inside.pseudo_names
    answer = ask(kernel, f"restore({inside.id!r})")
    assert {"done", "slow", "time"} <= set(answer["restored"])
    assert (answer["lost"], answer["warnings"]) == ([], [])
    assert answer["skipped"] == [skipped]
    (goes_on,) = answer["goes_on"]
    assert goes_on.startswith("loop 'train' goes on after ")
    assert names(kernel) - before <= set(answer["restored"])
    kernel.run("slow = False")
    told = kernel.run(LOOP)
    assert "ipyrescue: loop 'train' goes on after " in told.text
    assert "died" not in told.text  # no offer: the runner has decided
    assert kernel.value("done == list(range(200))")
    dead, alive = lives.read_all(store_root)
    assert (dead.restored, alive.every_seconds) == (inside.id, 0.2)

    ask(kernel, f"restore({inside.id!r})")
    kernel.run("another = 1")
    ask(kernel, "cell_done()")  # the loop that nobody took up is no loop of the cells that come
    assert PROGRESS not in newest(store_root).pseudo_names


def test_ends_of_cells_are_saved_once(make_kernel: Callable[..., Kernel], store_root: Path) -> None:
    """A good end by the request, one by an exception by the armed kernel; and what cannot be done is answered."""
    kernel = make_kernel(IPYRESCUE_LONG_CELL="0.1s", IPYRESCUE_MAX_SHARE="100%")
    assert "matches no snapshot" in ask(kernel, "restore('feedfeedfeedfeed')")["error"]
    ask(kernel, "begin(3600)")
    kernel.run("import time; time.sleep(0.3); x = 1")
    assert not (store_root / "snapshots").exists() or not list((store_root / "snapshots").iterdir())
    ask(kernel, "cell_done()")
    made = newest(store_root)
    assert (made.cut, made.trigger, made.sequence) == ("cell_end", "run", 1)

    assert kernel.try_run("x = 2; 1 / 0").error
    kernel.run("y = 0")
    ask(kernel, "cell_done()")  # waits for what a child is writing
    last, *before = Store.open(store_root, signing.load_key()).snapshots()
    assert [snapshot.cut for snapshot in (last, *before)] == ["cell_end", "interrupted", "cell_end"]
    pack = layout.pack_path(store_root, ({blob.pack for blob in last.blobs} - {blob.pack for blob in made.blobs}).pop())
    pack.chmod(0o600)
    pack.write_bytes(bytes(pack.stat().st_size))
    kernel.run("x = 3")
    assert "is damaged" in ask(kernel, f"restore({last.id!r})")["error"]
    assert kernel.value("x") == 3
