"""What takes the space, from manifests alone."""

import dataclasses

from ipyrescue.manifest import Buffer, Storage, Tensor
from ipyrescue.store import inventory
from ipyrescue.store.inventory import Held, Holding


def test_what_is_stored_once_counts_once(store, save):
    one = save(store, b"stream", b"s" * 4000, b"1" * 1000)
    two = save(store, b"stream", b"s" * 4000, b"2" * 1000)
    other = save(store, b"stream", b"o" * 500, notebook="b.ipynb")

    assert inventory.by_notebook([two, one, other]) == {
        "a.ipynb": Holding(2, 2 * 5006, 4000 + 2000 + 6, 6000),
        "b.ipynb": Holding(1, 506, 506, 500),
    }
    whole = inventory.in_all([two, one, other])
    assert (whole.stored_bytes, whole.shared_bytes) == (6506, 10518 - 6506)


def test_tensors_by_their_dotted_names_and_the_rest_by_its_group(store, save):
    """Two storages in one buffer that is cut in the middle of the second; a third one has no name."""
    saved = save(store, b"stream", b"0" * 1000, b"1" * 1000)
    (group,) = saved.groups
    group = dataclasses.replace(
        group,
        buffers=(Buffer((1, 2), 0, 2000),),
        storages=tuple(Storage(0, start, size, "torch", "cpu") for start, size in ((0, 600), (600, 800), (1400, 600))),
        tensors=(Tensor("m.w", 0, "uint8", (600,), (1,), 0), Tensor("m.b", 1, "uint8", (800,), (1,), 0)),
    )
    snapshot = dataclasses.replace(saved, groups=(group,))

    assert inventory.largest([snapshot, snapshot]) == [
        Held("a.ipynb", "m.b", 800, 1),
        Held("a.ipynb", "x", 606, 1),
        Held("a.ipynb", "m.w", 600, 1),
    ]


def test_contents_are_counted_over_snapshots(store, save):
    found = [save(store, b"stream", byte * 1000, b"same" * 100) for byte in (b"1", b"2", b"3")]

    assert inventory.largest(found)[0] == Held("a.ipynb", "x", 3 * 1000 + 400 + len(b"stream"), 3)
