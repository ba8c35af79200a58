"""NumPy arrays and streams of every kind."""

from fidelity.case import case

TITLE = "NumPy"
EXAMPLES = "structured, masked, Fortran-ordered, generators"
PRELUDE = "import numpy as np, tempfile, os"

_KINDS = {
    "float64": "np.linspace(0, 1, 7)",
    "float32": "np.linspace(0, 1, 7, dtype='f4')",
    "float16": "np.linspace(0, 1, 7).astype('f2')",
    "long double": "np.linspace(0, 1, 3, dtype=np.longdouble)",
    "complex": "np.arange(3) + 1j",
    "bool": "np.array([True, False])",
    "integers": "np.arange(5, dtype='u2')",
    "big endian": "np.arange(5, dtype='>i4')",
    "bytes": "np.array([b'ab', b'c'])",
    "str": "np.array(['ab', 'longer'])",
    "variable-width str": "np.array(['ab', 'longer'], dtype=np.dtypes.StringDType())",
    "datetime64": "np.array(['2026-11-21', 'NaT'], dtype='M8[D]')",
    "timedelta64": "np.array([1, 2], dtype='m8[s]')",
    "void": "np.array([b'abc'], dtype='V3')",
    "structured": "np.array([(1, 2.5)], dtype=[('a', 'i4'), ('b', 'f8')])",
    "structured and aligned": "np.zeros(2, dtype=np.dtype([('a', 'i1'), ('b', 'f8')], align=True))",
    "nested structured": "np.zeros(2, dtype=[('p', [('x', 'f4'), ('y', 'f4')]), ('m', 'i2', (2, 2))])",
    "structured with objects": "np.array([(1, [2])], dtype=[('a', 'i4'), ('o', 'O')])",
    "object": "np.array([1, 'a', None, [1]], dtype=object)",
    "0-d": "np.array(3.5)",
    "empty": "np.empty((0, 3))",
    "Fortran order": "np.asfortranarray(np.arange(6.).reshape(2, 3))",
    "Fortran order, 3 d": "np.array(np.arange(24).reshape(2, 3, 4), order='F')",
    "read only": "(lambda a: (a.setflags(write=False), a)[1])(np.arange(3))",
    "strided": "np.arange(20)[::3]",
    "not contiguous": "np.arange(12.).reshape(3, 4)[:, 1:3]",
    "NaN payloads": "np.array([0x7ff8000000000001, 0xfff0000000000123], dtype='u8').view('f8')",
    "negative zero": "np.array([-0.0, 0.0])",
    "masked": "np.ma.array([1., 2., 3.], mask=[0, 1, 0], fill_value=-1)",
    "masked, structured": "np.ma.array([(1, 2.)], mask=[(0, 1)], dtype=[('a', 'i4'), ('b', 'f8')])",
    "record array": "np.rec.array([(1, 2.)], dtype=[('a', 'i4'), ('b', 'f8')])",
    "matrix": "np.matrix([[1, 2], [3, 4]])",
    "char array": "np.char.array(['a', 'b'])",
    "a scalar": "np.float32(0.1)",
    "a datetime scalar": "np.datetime64('2026-11-21T08:00')",
    "a structured scalar": "np.array([(1, 2.5)], dtype=[('a', 'i4'), ('b', 'f8')])[0]",
    "a dtype with metadata": "np.zeros(1, np.dtype('f8', metadata={'unit': 'm'})).dtype",
    "big": "np.arange(100_000.)",
}
_TYPES = {
    "masked": "np.ma.MaskedArray",
    "masked, structured": "np.ma.MaskedArray",
    "record array": "np.recarray",
    "matrix": "np.matrix",
    "char array": "np.char.chararray",
}
_DIGEST = {
    "a structured scalar": "{0}.item()",
    "a dtype with metadata": "dict({0}.metadata)",
    "structured with objects": "{0}.tolist()",
}
_STREAMS = {
    "default_rng": "np.random.default_rng(3)",
    "MT19937": "np.random.Generator(np.random.MT19937(3))",
    "Philox": "np.random.Generator(np.random.Philox(3))",
    "SFC64": "np.random.Generator(np.random.SFC64(3))",
    "PCG64DXSM": "np.random.Generator(np.random.PCG64DXSM(3))",
    "RandomState": "np.random.RandomState(3)",
}


def _array(number: int, name: str, expression: str):
    a = f"array_{number}"
    holds = f"type({a}) is {_TYPES[name]}" if name in _TYPES else ()
    return case(name, f"{a} = {expression}", holds, _DIGEST.get(name, "{0}").format(a))


def _stream(number: int, name: str, expression: str):
    s = f"stream_{number}"
    return case(name, f"{s} = {expression}; {s}.normal(size=3)", same=f"{s}.normal(size=5)")


CASES = [
    *(_array(number, name, expression) for number, (name, expression) in enumerate(_KINDS.items())),
    *(_stream(number, name, expression) for number, (name, expression) in enumerate(_STREAMS.items())),
    case(
        "a memory map comes back as one, of its file",
        """
map_dir = tempfile.mkdtemp(); map_path = os.path.join(map_dir, 'data.bin')
mapped = np.memmap(map_path, dtype='i4', mode='w+', shape=(100,)); mapped[:] = np.arange(100); mapped.flush()""",
        [
            "type(mapped) is np.memmap",
            "str(mapped.filename) == map_path",
            "mapped[5] = -5; mapped.flush()\nnp.fromfile(map_path, 'i4')[5] == -5",
            "os.path.getsize(map_path) == 400",
        ],
        named="mapped: file",
    ),
    case(
        "a read-only memory map",
        """
ro_dir = tempfile.mkdtemp(); ro_path = os.path.join(ro_dir, 'r.bin'); np.arange(10).tofile(ro_path)
ro_map = np.memmap(ro_path, dtype='i8', mode='r')""",
        ["type(ro_map) is np.memmap and ro_map.mode == 'r'", "not ro_map.flags.writeable", "ro_map.sum() == 45"],
        named="ro_map: file",
    ),
    case(
        "np.load with mmap_mode",
        """
ml_dir = tempfile.mkdtemp(); np.save(ml_dir + '/x.npy', np.arange(12.).reshape(3, 4))
ml = np.load(ml_dir + '/x.npy', mmap_mode='r')""",
        ["ml.shape == (3, 4) and ml[2, 3] == 11", "type(ml) is np.memmap"],
        named="ml: file",
    ),
    case(
        "a slice of a memory map",
        """
sl_dir = tempfile.mkdtemp(); np.arange(1000).tofile(sl_dir + '/s.bin')
sl_map = np.memmap(sl_dir + '/s.bin', dtype='i8', mode='r'); sl = sl_map[100:103]""",
        "sl.tolist() == [100, 101, 102]",
        named="sl: file",
    ),
    case(
        "a memory map whose file is gone keeps its values",
        """
gone_dir = tempfile.mkdtemp(); np.arange(5).tofile(gone_dir + '/g.bin')
gone_map = np.memmap(gone_dir + '/g.bin', dtype='i8', mode='r'); os.remove(gone_dir + '/g.bin')""",
        "gone_map.tolist() == [0, 1, 2, 3, 4]",
    ),
    case(
        "a subclass with attributes",
        """
class Unit(np.ndarray):
    def __new__(cls, data, unit): self = np.asarray(data).view(cls); self.unit = unit; return self
    def __array_finalize__(self, other): self.unit = getattr(other, 'unit', None)
metres = Unit([1., 2.], 'm')""",
        ["type(metres) is Unit and metres.unit == 'm'", "(metres * 2).unit == 'm'", "metres.tolist() == [1, 2]"],
    ),
    case(
        "a subclass that pickles by itself",
        """
class Own(np.ndarray):
    def __reduce__(self): return own_make, (self.tolist(),)
def own_make(items): return np.array(items).view(Own)
own = np.arange(3).view(Own)""",
        "type(own) is Own and own.tolist() == [0, 1, 2]",
    ),
    case(
        "an object array that holds a named list",
        "oa_inner = []; oa = np.array([oa_inner, None], dtype=object)",
        "oa[0] is oa_inner",
    ),
    case(
        "an object array that holds itself",
        "self_arr = np.empty(1, dtype=object); self_arr[0] = self_arr",
        "self_arr[0] is self_arr",
    ),
    case(
        "two Generators over one bit generator",
        "bits = np.random.PCG64(1); gen_a = np.random.Generator(bits); gen_b = np.random.Generator(bits)",
        "gen_a.bit_generator is gen_b.bit_generator",
    ),
    case(
        "spawned streams",
        "parent_rng = np.random.default_rng(0); child_rngs = parent_rng.spawn(2)",
        same=["[c.random() for c in child_rngs]", "parent_rng.spawn(1)[0].random()"],
    ),
    case(
        "a SeedSequence",
        "seq = np.random.SeedSequence(42); seq.spawn(3)",
        "seq.n_children_spawned == 3",
        "seq.generate_state(4)",
    ),
    case(
        "a ufunc and a vectorised function",
        "uf = np.add; vf = np.vectorize(lambda x: x + 1)",
        ["uf is np.add", "vf([1, 2]).tolist() == [2, 3]"],
    ),
    case("a ufunc of a cell", "pyuf = np.frompyfunc(lambda a, b: a + b, 2, 1)", named="pyuf: ufunc"),
    case(
        "a polynomial",
        "poly = np.polynomial.Polynomial([1, 2, 3]); p1 = np.poly1d([1, 2])",
        "poly(2) == 17 and p1(1) == 3",
    ),
    case("an nditer is named", "nit = np.nditer([1, 2])", named="nit: nditer"),
    case(
        "an npz file is named",
        "npz_dir = tempfile.mkdtemp(); np.savez(npz_dir + '/z.npz', a=np.ones(2)); npz = np.load(npz_dir + '/z.npz')",
        named="npz: an open file",
    ),
    case(
        "index helpers", "ogrid = np.s_[1:3, ...]; ix = np.ix_([0, 1], [2])", "ogrid == (slice(1, 3), Ellipsis)", "ix"
    ),
    case(
        "error state",
        "errs = np.errstate(divide='ignore')",
        "with errs: pass\nTrue",
        known="holds a sentinel of NumPy by value: make it again",
    ),
    case("a histogram's tuple", "hist = np.histogram([1, 2, 2], bins=2)", same="hist"),
    case(
        "a dtype by itself",
        "plain_dt = np.dtype('f4'); struct_dt = np.dtype([('a', 'i4')])",
        "plain_dt == np.dtype('f4') and struct_dt.names == ('a',)",
    ),
]
