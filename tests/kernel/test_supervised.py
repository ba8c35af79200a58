"""What a runner asks of its kernel, by silent requests: real kernels, killed in the middle of a loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kernels import REPLY_SECONDS

from ipyrescue.store import lives

if TYPE_CHECKING:
    from kernels import Kernel

ASK = '__import__("ipyrescue.kernel.supervised", fromlist=["begin"]).{}'
LOOP = """
import time, ipyrescue
for epoch in ipyrescue.loop(range(50), name="train"):
    done.append(epoch)
    print("epoch", epoch)
    if slow and epoch >= 3:
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


def snapshots(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((root / "snapshots").glob("*.json"))]


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
    kernel.wait_for_output("epoch 30")
    kernel.kill()

    kernel = make_kernel()
    before = names(kernel)
    assert ask(kernel, "begin(5)")["ok"]
    inside = max(snapshots(store_root), key=lambda snapshot: snapshot["sequence"])
    assert inside["sequence"] > first["sequence"]
    answer = ask(kernel, f"restore({inside['id']!r})")
    assert {"done", "slow", "time"} <= set(answer["restored"])
    assert (answer["lost"], answer["warnings"]) == ([], [])
    assert answer["skipped"] == [skipped]
    (goes_on,) = answer["goes_on"]
    assert goes_on.startswith("loop 'train' goes on after ")
    assert names(kernel) - before <= set(answer["restored"])
    told = kernel.run(LOOP)
    assert "ipyrescue:" not in told.text  # no offer: the runner has decided
    assert kernel.value("done == list(range(50))")
    dead, alive = lives.read_all(store_root)
    assert (dead.restored, alive.every_seconds) == (inside["id"], 0.2)
