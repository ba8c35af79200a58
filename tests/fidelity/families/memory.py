"""Views and bases stay one piece of memory, whichever library made them."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Shared memory"
EXAMPLES = "views and their bases, tensors over arrays, slices"
PRELUDE = "import numpy as np, torch"
CASES = [
    case(
        "a view of a tensor",
        "mt = torch.arange(6.); mt_view = mt[2:4]",
        ["mt[2] = 50.\nmt_view[0].item() == 50", "mt_view.data_ptr() == mt.data_ptr() + 8"],
        ["mt", "mt_view"],
    ),
    case(
        "a view whose base has no name",
        "only_view = torch.arange(100.)[10:12]",
        "only_view.untyped_storage().nbytes() == 400",
        "only_view",
    ),
    case(
        "two views that overlap",
        "vb = torch.arange(9.); v_left, v_right = vb[:6], vb[3:]",
        "v_left[4] = -1\nv_right[1].item() == -1",
    ),
    case(
        "two views without a named base",
        "vn_left, vn_right = torch.arange(8.).split(4)",
        "vn_left.untyped_storage().data_ptr() == vn_right.untyped_storage().data_ptr()",
    ),
    case(
        "a transposed view",
        "mx = torch.arange(6.).reshape(2, 3); mx_t = mx.T",
        ["mx[0, 1] = 9\nmx_t[1, 0].item() == 9"],
        "mx_t",
    ),
    case(
        "a diagonal view",
        "md = torch.zeros(3, 3); diagonal = md.diagonal()",
        "diagonal.fill_(2)\nmd.trace().item() == 6",
    ),
    case(
        "an as_strided view",
        "ms = torch.arange(10.); windows = ms.as_strided((4, 3), (2, 1))",
        "ms[2] = 77\nwindows[0, 2].item() == windows[1, 0].item() == 77",
    ),
    case(
        "a detached tensor",
        "leafy = torch.ones(3, requires_grad=True); detached = leafy.detach()",
        ["detached[0] = 5.\nleafy[0].item() == 5", "leafy.requires_grad and not detached.requires_grad"],
    ),
    case(
        "a tensor's .data",
        "dt_p = torch.nn.Parameter(torch.ones(2)); dt_data = dt_p.data",
        "dt_data[0] = 4.\ndt_p[0].item() == 4",
    ),
    case(
        "another dtype over the same bytes",
        "bits_f = torch.ones(2); bits_i = bits_f.view(torch.int32)",
        "bits_i.zero_()\nbits_f.sum().item() == 0",
        "bits_i",
    ),
    case(
        "real view of a complex tensor",
        "cplx = torch.zeros(3, dtype=torch.complex64); as_real = torch.view_as_real(cplx)",
        "as_real[0, 1] = 3\ncplx[0].imag.item() == 3",
    ),
    case(
        "a tensor's storage by its own name",
        "st_t = torch.arange(4.); st = st_t.untyped_storage()",
        "st_t.untyped_storage().data_ptr() == st.data_ptr()",
    ),
    case(
        "a typed storage",
        "ty_t = torch.arange(4.); ty_st = ty_t.storage()",
        "ty_t.data_ptr() == ty_st.data_ptr() and len(ty_st) == 4",
    ),
    case(
        "torch over NumPy",
        "na = np.arange(5.); ta = torch.from_numpy(na)",
        ["na[1] = 30.\nta[1].item() == 30", "ta[2] = 40.\nna[2] == 40"],
    ),
    case("NumPy over torch", "tb = torch.arange(5.); nb = tb.numpy()", "tb[0] = 8\nnb[0] == 8"),
    case("NumPy over torch without the tensor", "n_alone = torch.arange(5.).numpy()", "n_alone.sum() == 10", "n_alone"),
    case(
        "torch over a NumPy view",
        "nv_base = np.arange(12.).reshape(3, 4); tv = torch.from_numpy(nv_base[:, 1:3])",
        "nv_base[2, 2] = -5\ntv[2, 1].item() == -5",
        "tv",
    ),
    case(
        "a whole row of relatives",
        "r0 = np.arange(10.); r1 = r0[::-2]; r2 = torch.from_numpy(r0); r3 = r2[3:5]",
        "r0[3] = 99.\nr2[3] == r3[0] == r1[3] == 99",
    ),
    case(
        "a NumPy view and its base",
        "nbase = np.arange(10); nview = nbase[3:7]",
        ["nbase[3] = 33\nnview[0] == 33", "nview.base is not None"],
        "nview",
    ),
    case("a NumPy view without its base", "nlone = np.arange(1000)[5:8]", same="nlone"),
    case("a reversed view", "nfwd = np.arange(6); nrev = nfwd[::-1]", "nfwd[0] = 60\nnrev[-1] == 60", "nrev"),
    case(
        "a field of a structured array",
        "ns = np.zeros(3, dtype=[('a', 'i4'), ('b', 'f8')]); nfield = ns['b']",
        "nfield[1] = 2.5\nns[1]['b'] == 2.5",
    ),
    case(
        "a broadcast view",
        "nrow = np.arange(3.); nbroad = np.broadcast_to(nrow, (4, 3))",
        ["not nbroad.flags.writeable", "nrow[0] = 6\nnbroad[3, 0] == 6"],
        "nbroad",
    ),
    case("a real part", "nz = np.zeros(3, complex); nreal = nz.real", "nreal[1] = 4\nnz[1].real == 4"),
    case("two NumPy arrays that only equal", "e0 = np.zeros(4); e1 = np.zeros(4)", "e0[0] = 1\ne1[0] == 0"),
    case("an array in a list and by name", "in_list = [np.zeros(2)]; by_name = in_list[0]", "by_name is in_list[0]"),
    case(
        "a view in a dict, its base by name",
        "vd_base = torch.zeros(6); vd = {'head': vd_base[:2]}",
        "vd['head'][0] = 3\nvd_base[0].item() == 3",
    ),
    case(
        "an expanded tensor",
        "narrow = torch.ones(1, 3); wide = narrow.expand(5, 3)",
        "narrow[0, 0] = 4\nwide[4, 0].item() == 4",
        "wide",
    ),
    case(
        "frombuffer over a bytearray",
        "raw = bytearray(8); over_raw = np.frombuffer(raw, np.uint8)",
        same="over_raw",
        named="over_raw: separate",
    ),
    case(
        "torch.frombuffer over a bytearray",
        "traw = bytearray(8); t_over_raw = torch.frombuffer(traw, dtype=torch.uint8)",
        "traw[2] = 9\nt_over_raw[2].item() == 9",
        known="torch does not tell whose memory such a tensor uses; it comes back with its values, and separate",
    ),
    case(
        "a memoryview of a bytearray",
        "mraw = bytearray(8); mview = memoryview(mraw); mpart = mview[2:6]",
        ["mview.obj is mraw", "mraw[3] = 5\nmview[3] == 5 and mpart[1] == 5 and len(mpart) == 4"],
    ),
    case(
        "an array over an array.array",
        "import array\nstd_arr = array.array('d', [1., 2.]); over_std = np.frombuffer(std_arr)",
        same="over_std",
        named="over_std: separate",
    ),
    case(
        "frombuffer over bytes",
        "raw_bytes = bytes(range(8)); over_bytes = np.frombuffer(raw_bytes, np.uint8)",
        "not over_bytes.flags.writeable",
        "over_bytes",
    ),
    case(
        "views within a subclass of ndarray",
        """
class Tagged(np.ndarray): pass
tg_base = np.arange(6.).view(Tagged); tg_view = tg_base[2:4]""",
        ["type(tg_view) is Tagged", "tg_base[2] = -2\ntg_view[0] == -2"],
    ),
    case(
        "a recarray over an array",
        "rc_base = np.zeros(2, dtype=[('a', 'i4')]); rc = rc_base.view(np.recarray)",
        "rc_base['a'][1] = 6\nrc.a[1] == 6",
    ),
    case(
        "a matrix over an array",
        "mat_base = np.zeros((2, 2)); mat = np.asmatrix(mat_base)",
        "mat_base[0, 1] = 3\nmat[0, 1] == 3",
    ),
    case(
        "a masked array's data by name",
        "ma_data = np.arange(4.); masked = np.ma.array(ma_data, mask=[0, 1, 0, 0], copy=False)",
        ["ma_data[0] = 9\nmasked[0] == 9", "masked.mask[1]"],
    ),
    case(
        "an object array's view",
        "ob = np.array([None, [1], 'x'], dtype=object); ob_view = ob[1:]",
        "ob[1] = 'changed'\nob_view[0] == 'changed'",
    ),
    case(
        "views of an object array in every direction",
        "ob2 = np.array([[[], 'a', 1], [None, 'b', 2]], dtype=object, order='F'); ob2_t = ob2.T[::-1]; ob2_cell = ob2[1:, 1]; ob2_flat = ob2.reshape(-1, order='F')",
        ["ob2[1, 1] = 'changed'\nob2_cell[0] == ob2_t[1, 1] == ob2_flat[3] == 'changed'", "ob2_t[2, 0] is ob2[0, 0]"],
    ),
    case(
        "an object array that holds a view of itself",
        "ob_self = np.array([None, [1]], dtype=object); ob_self[0] = ob_self[1:]",
        "'ob_self' not in globals() or ob_self[0][0] is ob_self[1]",
        named="ob_self: a view of itself",
    ),
    case(
        "an object array by a view alone",
        "ob_rest = np.array([[1], 'x', None], dtype=object)[::-2]; ob_rest.flags.writeable = False",
        "not ob_rest.flags.writeable",
        "ob_rest",
    ),
    case(
        "a memory map and its file",
        "import tempfile\nmm_dir = tempfile.mkdtemp()\nmm = np.memmap(mm_dir + '/m.bin', dtype='f4', mode='w+', shape=(16,)); mm[:] = 3; mm.flush()",
        ["isinstance(mm, np.memmap)", "mm.filename.endswith('m.bin')"],
        "np.asarray(mm)",
        named="mm: file",
    ),
    case(
        "a big tensor that is viewed is stored once",
        "big = torch.zeros(300_000); big_views = [big[i:] for i in range(20)]",
        "all(v.untyped_storage().data_ptr() == big.data_ptr() for v in big_views)",
    ),
    case("a tensor in shared memory", "shm = torch.arange(4.).share_memory_()", same="shm"),
    case(
        "gradient that is a view",
        "gv_flat = torch.zeros(4); gv_p = torch.nn.Parameter(torch.ones(2)); gv_p.grad = gv_flat[1:3]",
        "gv_flat.fill_(3)\ngv_p.grad.sum().item() == 6",
    ),
    case(
        "parameters that are views of one flat buffer",
        "fb_net = torch.nn.Linear(2, 2); fb_flat = torch.cat([p.detach().flatten() for p in fb_net.parameters()])\nfb_net.weight.data = fb_flat[:4].view(2, 2)",
        "fb_flat.zero_()\nfb_net.weight.abs().sum().item() == 0",
    ),
]
