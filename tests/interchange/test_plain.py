"""Any strides come out in C order, and a manifest that lies about them ends in CorruptError."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.interchange import dtypes, npy
from ipyrescue.interchange.plain import Plain, in_c_order
from ipyrescue.manifest import Group, Stream, Tensor

GROUP = Group(("x",), "data", "pickle", Stream((), 0, "raw"), (), (), (), (), ())


def plain(dtype, shape, strides, offset):
    return Plain(GROUP, Tensor("x", 0, dtype, tuple(shape), tuple(strides), offset))


slices = st.slices(5)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(first=slices, second=slices, third=slices, axes=st.permutations(range(3)), dtype=st.sampled_from(["i1", "f8"]))
def test_every_view_of_an_array_comes_out_as_numpy_copies_it(first, second, third, axes, dtype):
    memory = np.arange(125).astype(dtype).reshape(5, 5, 5)
    view = memory[first, second, third].transpose(axes)
    start = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0] if view.size else 0

    found = in_c_order(
        plain(str(view.dtype), view.shape, view.strides, start), memoryview(memory.tobytes()), counts_bytes=True
    )

    assert found == view.tobytes()


LAYOUTS = {
    "columns, as pandas makes them": lambda: np.arange(600_000.0).reshape(20, 30_000).T,
    "few long columns": lambda: np.arange(400_000, dtype="i2").reshape(2, 200_000).T,
    "many short columns": lambda: np.asfortranarray(np.arange(6_000, dtype="i4").reshape(3, 2_000)),
    "long rows with gaps": lambda: np.arange(300_000.0).reshape(300, 1_000)[:, :900],
    "backwards in longer items": lambda: np.arange(30_000, dtype="c16").reshape(3, 10_000)[:, ::-1].T,
    "texts": lambda: np.asfortranarray(np.array(["abc", "d", "ef"] * 4).reshape(6, 2)),
    "three bytes each": lambda: np.array([b"abc", b"d", b"ef"] * 4).reshape(6, 2).T,
    "one field of records": lambda: np.zeros(9_000, [("a", "i4"), ("b", "f8")])["b"].reshape(90, 100).T,
    "one element many times": lambda: np.broadcast_to(np.float32(7), (30_000, 2)),
    "one row many times": lambda: np.broadcast_to(np.arange(5.0), (20_000, 5)),
    "axes of one": lambda: np.arange(12.0).reshape(3, 1, 4).transpose(2, 1, 0),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_copied_with_no_more_memory_than_it_takes(make):
    """Beside the bytes that are given and those that come out, whatever the strides are."""
    array = make()
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    described = plain(str(array.dtype), array.shape, array.strides, start)
    memory = memoryview(owner.tobytes("A"))

    tracemalloc.start()
    try:
        found = in_c_order(described, memory, counts_bytes=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert bytes(found) == array.tobytes()
    assert peak_bytes < array.nbytes + 300_000


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((5,), (1,), 0), ((4,), (1,), 1), ((2,), (-1,), 0), ((1,), (1,), -1), ((2, 2), (4, 1), 0), ((4,), (), 0),
        ((-1,), (1,), 0),
    ],
)  # fmt: skip
def test_elements_outside_of_the_bytes_are_damage(shape, strides, offset):
    with pytest.raises(CorruptError):
        in_c_order(plain("float32", shape, strides, offset), memoryview(bytes(16)), counts_bytes=False)


@pytest.mark.parametrize(
    "spelled",
    ["f4", ">u2", "?", "c16", "S7", "U3", "V5", "M8[ns]", "m8[3D]", "f2", "g", [("a", "<i4"), ("b", ">f8", (2, 3))],
     [("a", [("b", "i1"), ("c", "U2")]), ("d", "?")]],
)  # fmt: skip
def test_a_dtype_as_numpy_spells_it_is_understood(spelled):
    """Its size, and in a header that NumPy reads as the same dtype."""
    dtype = np.dtype(spelled)
    described = plain(str(dtype), (0,), (dtype.itemsize,), 0)

    assert dtypes.item_bytes(str(dtype)) == dtype.itemsize
    assert np.load(io.BytesIO(npy.header(described)), allow_pickle=False).dtype == dtype
    assert len(npy.header(described)) % 64 == 0


@pytest.mark.parametrize(
    "dtype",
    ["object", "O", "qint8", "", "float32 ", "[('a', 'O')]", "[1]", "[]" * 9, "__import__('os')", "{'names': 3}"],
)
def test_what_is_no_plain_dtype_is_refused(dtype):
    with pytest.raises(StoreError, match="not plain numbers"):
        dtypes.item_bytes(dtype)


def test_a_header_of_many_fields_has_room():
    dtype = np.dtype([(f"a_long_name_of_a_field_{number}", "<i4") for number in range(3000)])

    head = npy.header(plain(str(dtype), (0,), (dtype.itemsize,), 0))

    assert head[6:8] == b"\x02\x00"
    assert np.load(io.BytesIO(head), allow_pickle=False, max_header_size=10**6).dtype == dtype


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int64", "float16", "bfloat16", "float8_e5m2", "complex64"]
)
def test_every_type_of_safetensors_has_the_size_that_is_written(dtype):
    """A header whose offsets do not fit its shapes would be refused by others."""
    torch = pytest.importorskip("torch")

    assert dtypes.safetensors(dtype)
    assert dtypes.item_bytes(dtype) == getattr(torch, dtype).itemsize
