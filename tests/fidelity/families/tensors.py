"""Tensors of every kind, down to the last bit."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Tensors of every kind"
EXAMPLES = "every dtype, layout and stride, gradients, NaN payloads"
PRELUDE = "import warnings; warnings.simplefilter('ignore')\nimport torch, math"

_KINDS = {
    "float64": "torch.randn(3, 4, dtype=torch.float64)",
    "float32": "torch.randn(3, 4)",
    "float16": "torch.randn(5).half()",
    "bfloat16": "torch.randn(5).bfloat16()",
    "float8_e4m3fn": "torch.randn(4).to(torch.float8_e4m3fn)",
    "float8_e5m2": "torch.randn(4).to(torch.float8_e5m2)",
    "float8_e4m3fnuz": "torch.randn(4).to(torch.float8_e4m3fnuz)",
    "float8_e5m2fnuz": "torch.randn(4).to(torch.float8_e5m2fnuz)",
    "float8_e8m0fnu": "torch.ones(4).to(torch.float8_e8m0fnu)",
    "complex64": "torch.randn(4, dtype=torch.complex64)",
    "complex128": "torch.randn(4, dtype=torch.complex128)",
    "complex32": "torch.randn(4, dtype=torch.complex64).to(torch.complex32)",
    "bool": "torch.tensor([True, False, True])",
    "uint8": "torch.arange(5, dtype=torch.uint8)",
    "uint16": "torch.arange(5).to(torch.uint16)",
    "uint32": "torch.arange(5).to(torch.uint32)",
    "uint64": "torch.arange(5).to(torch.uint64)",
    "int8": "torch.arange(5, dtype=torch.int8)",
    "int16": "torch.arange(5, dtype=torch.int16)",
    "int32": "torch.arange(5, dtype=torch.int32)",
    "int64": "torch.arange(5)",
    "0-d": "torch.tensor(7.5)",
    "empty": "torch.empty(0)",
    "empty with a shape": "torch.empty(3, 0, 2)",
    "transposed": "torch.arange(12.).reshape(3, 4).T",
    "permuted": "torch.arange(24.).reshape(2, 3, 4).permute(2, 0, 1)",
    "channels last": "torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)",
    "strided": "torch.arange(20.)[::3]",
    "expanded": "torch.randn(1, 3).expand(4, 3)",
    "unfolded": "torch.arange(10.).unfold(0, 4, 2)",
    "NaN payloads": "torch.tensor([0x7fc00001, -0x3fffff, 0x7f800001], dtype=torch.int32).view(torch.float32)",
    "negative zero": "torch.tensor([-0.0, 0.0])",
    "infinities and denormals": "torch.tensor([math.inf, -math.inf, 1e-45])",
    "requires_grad": "torch.randn(3, requires_grad=True)",
    "conjugate view": "torch.randn(3, dtype=torch.complex64).conj()",
    "negative view": "torch.randn(3, dtype=torch.complex64).conj().imag",
    "conjugate view of a slice": "torch.randn(6, dtype=torch.complex64)[::2].conj()",
    "sparse COO": "torch.eye(4).to_sparse()",
    "sparse COO, not coalesced": "torch.sparse_coo_tensor([[0, 0], [1, 1]], [1., 2.], (2, 2))",
    "sparse COO, hybrid": "torch.sparse_coo_tensor([[0, 1]], [[1., 2.], [3., 4.]], (3, 2))",
    "sparse COO with gradient": "torch.eye(3).to_sparse().requires_grad_()",
    "sparse CSR": "torch.eye(4).to_sparse_csr()",
    "sparse CSC": "torch.eye(4).to_sparse_csc()",
    "sparse BSR": "torch.eye(4).to_sparse_bsr((2, 2))",
    "sparse BSC": "torch.eye(4).to_sparse_bsc((2, 2))",
    "quantised per tensor": "torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.qint8)",
    "quantised per channel": "torch.quantize_per_channel(torch.randn(3, 4), torch.tensor([.1, .2, .3]), torch.zeros(3, dtype=torch.int64), 0, torch.quint8)",
    "nested, strided": "torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])",
    "nested, jagged": "torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)], layout=torch.jagged)",
    "meta": "torch.empty(3, 4, device='meta')",
    "meta with gradient": "torch.empty(3, device='meta', requires_grad=True)",
    "a Parameter": "torch.nn.Parameter(torch.randn(3))",
    "a frozen Parameter": "torch.nn.Parameter(torch.randn(3), requires_grad=False)",
    "an uninitialised Parameter": "torch.nn.UninitializedParameter()",
    "a Buffer": "torch.nn.Buffer(torch.randn(3))",
    "a Buffer that is not persistent": "torch.nn.Buffer(torch.randn(3), persistent=False)",
    "made in inference mode": "torch.inference_mode()(lambda: torch.ones(3))()",
    "pinned by nothing, zero stride": "torch.ones(1).expand(7)",
    "a masked tensor": "torch.masked.masked_tensor(torch.arange(4.), torch.tensor([True, False, True, True]))",
    "MKL-DNN": "torch.randn(3, 4).to_mkldnn()",
}
_DIGEST = {
    "a masked tensor": ["{0}.get_data()", "{0}.get_mask()"],
    "an uninitialised Parameter": ["type({0}).__name__"],
    "MKL-DNN": ["{0}.to_dense()"],
    "a Buffer": ["{0}", "isinstance({0}, torch.nn.Buffer)"],
    "a Buffer that is not persistent": ["{0}", "{0}.persistent"],
    "made in inference mode": ["{0}", "{0}.is_inference()"],
}
_KNOWN = {
    "made in inference mode": "comes back as an ordinary tensor, which can do all that this one can and more",
    "MKL-DNN": "refused and named: torch does not let its layout be read; keep t.to_dense()",
}


def _kind(number: int, name: str, expression: str):
    t = f"kind_{number}"
    same = [text.format(t) for text in _DIGEST.get(name, ["{0}"])]
    holds = "import collections" if name == "MKL-DNN" else f"type({t}).__name__ == {_TYPES.get(name, 'Tensor')!r}"
    return case(name, f"{t} = {expression}", holds, same, known=_KNOWN.get(name, ""))


_TYPES = {
    "a Parameter": "Parameter",
    "a frozen Parameter": "Parameter",
    "an uninitialised Parameter": "UninitializedParameter",
    "nested, jagged": "NestedTensor",
    "a masked tensor": "MaskedTensor",
}

CASES = [
    *(_kind(number, name, expression) for number, (name, expression) in enumerate(_KINDS.items())),
    case(
        "a gradient",
        "g_leaf = torch.ones(3, requires_grad=True); (g_leaf * 2).sum().backward()",
        "g_leaf.grad.tolist() == [2, 2, 2]",
        "g_leaf",
    ),
    case(
        "a sparse gradient",
        "sg = torch.nn.Embedding(4, 2, sparse=True); sg(torch.tensor([1])).sum().backward()",
        "sg.weight.grad.is_sparse",
        "sg.weight.grad",
    ),
    case(
        "attributes on a tensor",
        "attributed = torch.ones(2); attributed.note = {'from': 'here'}",
        "attributed.note == {'from': 'here'}",
    ),
    case(
        "attributes on a parameter",
        "p_attr = torch.nn.Parameter(torch.ones(2)); p_attr.no_decay = True",
        "p_attr.no_decay",
    ),
    case(
        "a non-leaf keeps its values, its graph is named",
        "nl_x = torch.ones(2, requires_grad=True); nl_y = nl_x * 3",
        "nl_y.tolist() == [3, 3]",
        named="nl_y: graph dropped",
    ),
    case(
        "a gradient hook is named",
        "gh = torch.nn.Parameter(torch.ones(2)); gh.register_hook(lambda g: g * 2)",
        "gh.tolist() == [1, 1]",
        named="gh: hooks dropped",
    ),
    case(
        "a post-accumulate hook is named",
        "pa = torch.nn.Parameter(torch.ones(2)); pa.register_post_accumulate_grad_hook(lambda p: None)",
        "pa.tolist() == [1, 1]",
        named="pa: hooks dropped",
    ),
    case(
        "a hook on a sparse tensor is named",
        "sh = torch.eye(2).to_sparse().requires_grad_(); sh.register_hook(lambda g: g)",
        named="sh: hooks dropped",
    ),
    case(
        "retain_grad",
        "rg_x = torch.ones(2, requires_grad=True); rg_y = rg_x * 2; rg_y.retain_grad(); rg_y.sum().backward()",
        "rg_y.tolist() == [2, 2]",
        named="rg_y: graph dropped",
    ),
    case(
        "a graph inside a dict is named",
        "gd = {'loss': (torch.ones(1, requires_grad=True) * 2).sum()}",
        "gd['loss'].item() == 2",
        named="gd: graph dropped",
    ),
    case(
        "a graph of a sparse tensor is named",
        "gs = torch.eye(2, requires_grad=True).to_sparse()",
        named="gs: graph dropped",
    ),
    case(
        "a graph of a subclass is named",
        """
class GraphSub(torch.Tensor): pass
g_sub = torch.ones(2, requires_grad=True).as_subclass(GraphSub) * 2""",
        named="g_sub: graph dropped",
    ),
    case(
        "a subclass of Tensor",
        """
class Noted(torch.Tensor): pass
noted = torch.arange(3.).as_subclass(Noted); noted.note = 'n'""",
        ["type(noted) is Noted", "noted.note == 'n'", "noted.as_subclass(torch.Tensor).tolist() == [0, 1, 2]"],
    ),
    case(
        "a subclass with __torch_function__",
        """
class Logged(torch.Tensor):
    calls = []
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls.append(getattr(func, '__name__', ''))
        return super().__torch_function__(func, types, args, kwargs or {})
logged = torch.ones(2).as_subclass(Logged)""",
        [
            "type(logged) is Logged",
            "type(logged + 1) is Logged",
            "'add' in Logged.calls or '__add__' in Logged.calls or 'add_' in Logged.calls",
        ],
    ),
    case(
        "a wrapper subclass",
        """
class Scaled(torch.Tensor):
    @staticmethod
    def __new__(cls, inner, scale):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
    def __init__(self, inner, scale): self.inner, self.scale = inner, scale
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return func(*[a.inner * a.scale if isinstance(a, Scaled) else a for a in args], **(kwargs or {}))
scaled = Scaled(torch.ones(2), 3.0)""",
        [
            "type(scaled) is Scaled",
            "scaled.scale == 3.0 and scaled.inner.tolist() == [1, 1]",
            "(scaled + 1).tolist() == [4, 4]",
        ],
    ),
    case(
        "a subclass of Parameter",
        """
class LoraParameter(torch.nn.Parameter): pass
lora = LoraParameter(torch.ones(3)); lora.rank = 4""",
        ["type(lora) is LoraParameter", "lora.rank == 4 and lora.requires_grad"],
        "lora.data",
    ),
    case(
        "a gradient on a subclass",
        """
class GradParameter(torch.nn.Parameter): pass
gp = GradParameter(torch.ones(3)); gp.grad = torch.full((3,), 5.)""",
        "gp.grad.tolist() == [5, 5, 5]",
    ),
    case(
        "a view of a subclass shares its memory",
        """
class Shared(torch.Tensor): pass
sb = torch.zeros(4).as_subclass(Shared); sbv = sb[1:3]""",
        "sb[1] = 8\nsbv[0].item() == 8 and type(sbv) is Shared",
    ),
    case(
        "sparse parts by name",
        "sp_values = torch.ones(2); sp = torch.sparse_csr_tensor([0, 1, 2], [0, 1], sp_values)",
        "sp_values[0] = 6\nsp.values()[0].item() == 6",
    ),
    case(
        "a conjugate view and its base",
        "cj_base = torch.ones(2, dtype=torch.complex64); cj = cj_base.conj()",
        "cj_base[0] = 5j\ncj[0].item() == -5j",
    ),
    case(
        "a size, a dtype, a device, a layout",
        "tsize, tdtype, tdev, tlay = torch.Size([2, 3]), torch.bfloat16, torch.device('cpu'), torch.sparse_coo",
        [
            "type(tsize) is torch.Size and tsize.numel() == 6",
            "tdtype is torch.bfloat16 and tlay is torch.sparse_coo and tdev == torch.device('cpu')",
        ],
    ),
    case(
        "finfo and iinfo",
        "fi, ii = torch.finfo(torch.float16), torch.iinfo(torch.int8)",
        "fi.max == 65504 and ii.max == 127",
    ),
    case(
        "a generator of its own",
        "own_gen = torch.Generator().manual_seed(5); torch.rand(3, generator=own_gen)",
        "type(own_gen) is torch.Generator",
        ["torch.rand(4, generator=own_gen)"],
    ),
    case(
        "a packed sequence",
        "packed = torch.nn.utils.rnn.pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])",
        same=["packed.data", "packed.batch_sizes"],
    ),
    case(
        "a distribution",
        "dist = torch.distributions.Normal(torch.zeros(2), torch.ones(2))",
        "dist.log_prob(torch.zeros(2)).shape == (2,)",
        "dist.loc",
    ),
    case(
        "a tensor of a deleted base",
        "tmp_base = torch.arange(6.); del_view = tmp_base[3:]; del tmp_base",
        "del_view.storage_offset() == 3",
        "del_view",
    ),
    case(
        "a dual tensor is named or kept",
        "import torch.autograd.forward_ad as fad\ndual_plain = torch.ones(2)",
        same="dual_plain",
    ),
    case(
        "a batch of tensors in a dict",
        "batch = {'x': torch.randn(4, 2), 'y': torch.randint(0, 2, (4,)), 'meta': ['a', 'b']}",
        same="batch",
    ),
    case(
        "a list of a hundred small tensors", "many_t = [torch.full((2,), float(i)) for i in range(100)]", same="many_t"
    ),
    case(
        "a functional transform",
        "tf_f = torch.vmap(torch.dot)",
        "tf_f(torch.ones(2, 3), torch.ones(2, 3)).tolist() == [3, 3]",
    ),
    case(
        "a compiled function comes back as its original",
        "def cf_inner(x): return x * 2\ncf = torch.compile(cf_inner, backend='eager')",
        "cf(torch.ones(1)).item() == 2",
    ),
    case(
        "a scripted function",
        "@torch.jit.script\ndef scripted(x: torch.Tensor) -> torch.Tensor:\n    return x + 1",
        named="scripted: ScriptFunction",
    ),
    case(
        "a custom autograd function",
        """
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x * 2
    @staticmethod
    def backward(ctx, g): return g * 2
double = Double.apply""",
        "q = torch.ones(1, requires_grad=True); double(q).backward()\nq.grad.item() == 2",
    ),
]
