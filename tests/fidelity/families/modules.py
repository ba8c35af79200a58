"""Modules: parameters, buffers, hooks, mode, and what torch wraps around them."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Modules"
EXAMPLES = "layers, buffers, hooks, parametrizations, scripted and compiled ones"
PRELUDE = "import warnings; warnings.simplefilter('ignore')\nimport torch, copy, functools, torch.nn.utils.prune\nfrom torch import nn"

_LAYERS = {
    "Linear": ("nn.Linear(3, 2)", "torch.ones(1, 3)"),
    "Conv2d": ("nn.Conv2d(1, 2, 3)", "torch.ones(1, 1, 5, 5)"),
    "BatchNorm": ("nn.BatchNorm1d(3)", "torch.ones(2, 3)"),
    "LayerNorm": ("nn.LayerNorm(3)", "torch.ones(2, 3)"),
    "LSTM": ("nn.LSTM(3, 4, 2)", "torch.ones(5, 1, 3)"),
    "GRU, bidirectional": ("nn.GRU(3, 4, bidirectional=True)", "torch.ones(5, 1, 3)"),
    "MultiheadAttention": ("nn.MultiheadAttention(4, 2)", "*[torch.ones(3, 1, 4)] * 3"),
    "TransformerEncoder": (
        "nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), 2)",
        "torch.ones(3, 1, 4)",
    ),
    "Embedding": ("nn.Embedding(5, 3)", "torch.tensor([1, 2])"),
    "EmbeddingBag": ("nn.EmbeddingBag(5, 3)", "torch.tensor([[1, 2]])"),
    "Sequential": ("nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))", "torch.ones(1, 3)"),
    "PReLU in a ModuleList": ("nn.ModuleList([nn.PReLU()])[0]", "torch.ones(1, 3)"),
    "double precision": ("nn.Linear(3, 2).double()", "torch.ones(1, 3, dtype=torch.float64)"),
    "bfloat16": ("nn.Linear(3, 2).bfloat16()", "torch.ones(1, 3, dtype=torch.bfloat16)"),
    "in eval mode": ("nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).eval()", "torch.ones(1, 3)"),
    "frozen": ("nn.Linear(3, 2).requires_grad_(False)", "torch.ones(1, 3)"),
    "spectral norm": ("nn.utils.spectral_norm(nn.Linear(3, 2)).eval()", "torch.ones(1, 3)"),
    "spectral norm by parametrization": (
        "nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval()",
        "torch.ones(1, 3)",
    ),
    "weight norm": ("nn.utils.weight_norm(nn.Linear(3, 2))", "torch.ones(1, 3)"),
    "weight norm by parametrization": ("nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))", "torch.ones(1, 3)"),
    "orthogonal": ("nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))", "torch.ones(1, 3)"),
    "pruned": ("torch.nn.utils.prune.random_unstructured(nn.Linear(3, 2), 'weight', 0.5)", "torch.ones(1, 3)"),
    "DataParallel": ("nn.DataParallel(nn.Linear(3, 2))", "torch.ones(1, 3)"),
    "dynamically quantised": (
        "torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 2)), {nn.Linear})",
        "torch.ones(1, 3)",
    ),
    "traced": ("torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))", "torch.ones(1, 3)"),
    "scripted": ("torch.jit.script(nn.Linear(3, 2))", "torch.ones(1, 3)"),
    "compiled": ("torch.compile(nn.Linear(3, 2), backend='eager')", "torch.ones(1, 3)"),
    "symbolically traced": ("torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))", "torch.ones(1, 3)"),
}
_KNOWN = {}


def _layer(number: int, name: str, module: str, argument: str):
    m = f"layer_{number}"
    same = [f"{m}.state_dict()", f"{m}.training", f"[p.requires_grad for p in {m}.parameters()]", f"{m}({argument})"]
    if "BatchNorm" in name or "Dropout" in module or "Attention" in name:
        same[-1] = f"{m}.eval()({argument})"
    return case(name, f"{m} = {module}", f"isinstance({m}, nn.Module)", same, known=_KNOWN.get(name, ""))


CASES = [
    *(_layer(number, name, *made) for number, (name, made) in enumerate(_LAYERS.items())),
    case(
        "a class of a cell",
        """
class CellNet(nn.Module):
    def __init__(self):
        super().__init__(); self.a = nn.Linear(2, 2); self.b = nn.Linear(2, 1)
    def forward(self, x): return self.b(self.a(x).relu())
cell_net = CellNet()""",
        ["type(cell_net) is CellNet", "isinstance(cell_net, nn.Module)"],
        ["cell_net.state_dict()", "cell_net(torch.ones(1, 2))"],
    ),
    case(
        "a buffer that is not persistent",
        "np_mod = nn.Module(); np_mod.register_buffer('scratch', torch.arange(3.), persistent=False)",
        ["'scratch' not in np_mod.state_dict()"],
        "np_mod.scratch",
    ),
    case(
        "a None parameter",
        "none_mod = nn.Linear(2, 2, bias=False)",
        "none_mod.bias is None and 'bias' in none_mod._parameters",
    ),
    case(
        "a ParameterList and a ParameterDict",
        "pl = nn.ParameterList([nn.Parameter(torch.ones(1))]); pd_ = nn.ParameterDict({'k': pl[0]})",
        "pd_['k'] is pl[0]",
    ),
    case(
        "a ModuleDict",
        "mdict = nn.ModuleDict({'lin': nn.Linear(1, 1)}); mdict_lin = mdict['lin']",
        "mdict['lin'] is mdict_lin",
    ),
    case(
        "a shared submodule",
        "sub = nn.Linear(2, 2); sharing = nn.Sequential(sub, nn.ReLU(), sub)",
        "sharing[0] is sharing[2] is sub",
    ),
    case(
        "a forward hook defined in a cell",
        """
fh_net = nn.Linear(2, 2)
def double_output(module, args, out): return out * 2
fh = fh_net.register_forward_hook(double_output)""",
        [
            "fh_net._forward_hooks and list(fh_net._forward_hooks.values()) == [double_output]",
            "fh.remove()\nnot fh_net._forward_hooks",
        ],
    ),
    case(
        "a forward pre-hook that is a lambda",
        "fph_net = nn.Linear(2, 2); fph = fph_net.register_forward_pre_hook(lambda m, a: (a[0] * 0,))",
        "torch.equal(fph_net(torch.ones(1, 2))[0], fph_net.bias)",
    ),
    case(
        "a full backward hook",
        """
bw_seen = []
bw_net = nn.Linear(2, 2); bw_net.register_full_backward_hook(lambda m, gi, go: bw_seen.append(1))""",
        "bw_net(torch.ones(1, 2)).sum().backward()\nlen(bw_seen) >= 1",
    ),
    case(
        "a state_dict hook",
        "sdh_net = nn.Linear(1, 1); sdh_net.register_state_dict_post_hook(lambda m, sd, p, l: sd.__setitem__('extra', 1))",
        "sdh_net.state_dict()['extra'] == 1",
    ),
    case(
        "gradients of all parameters",
        "gr_net = nn.Linear(2, 2); gr_net(torch.ones(1, 2)).sum().backward()",
        same="[p.grad for p in gr_net.parameters()]",
    ),
    case(
        "a forward replaced on the instance",
        """
patched = nn.Linear(2, 2)
def patched_forward(x): return x * 100
patched.forward = patched_forward""",
        "patched(torch.ones(1)).item() == 100",
    ),
    case(
        "a forward replaced by a bound method",
        """
import types
bpatched = nn.Linear(2, 2)
def zero_forward(self, x): return self.weight * 0
bpatched.forward = types.MethodType(zero_forward, bpatched)""",
        "bpatched(1).abs().sum().item() == 0 and bpatched.forward.__self__ is bpatched",
    ),
    case(
        "plain attributes on a module",
        "attr_net = nn.Linear(1, 1); attr_net.config = {'depth': 3}; attr_net.tokens = ['a']",
        "attr_net.config == {'depth': 3} and attr_net.tokens == ['a']",
    ),
    case("a lazy module", "lazy = nn.LazyLinear(3)", "lazy(torch.ones(1, 5))\nlazy.weight.shape == (3, 5)"),
    case(
        "a lazy module that has run",
        "lazy_run = nn.LazyLinear(3); lazy_run(torch.ones(1, 4))",
        "type(lazy_run) is nn.Linear",
        "lazy_run.state_dict()",
    ),
    case(
        "a parametrization of a cell",
        """
class Symmetric(nn.Module):
    def forward(self, x): return x.triu() + x.triu(1).T
sym = nn.Linear(3, 3); nn.utils.parametrize.register_parametrization(sym, 'weight', Symmetric())""",
        [
            "torch.equal(sym.weight, sym.weight.T)",
            "nn.utils.parametrize.is_parametrized(sym)",
            "isinstance(sym, nn.Linear)",
        ],
        "sym.weight",
    ),
    case(
        "a parametrization that is removed afterwards",
        """
class Positive(nn.Module):
    def forward(self, x): return x.abs()
pos = nn.Linear(2, 2); nn.utils.parametrize.register_parametrization(pos, 'weight', Positive())""",
        "nn.utils.parametrize.remove_parametrizations(pos, 'weight')\ntype(pos) is nn.Linear and bool((pos.weight >= 0).all())",
    ),
    case(
        "an optimizer over a parametrized module",
        """
po_net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)); po_opt = torch.optim.SGD(po_net.parameters(), 0.1)""",
        "all(any(a is b for b in po_net.parameters()) for a in po_opt.param_groups[0]['params'])",
    ),
    case(
        "a compiled module is the module it was made of",
        "tc_orig = nn.Linear(2, 2); tc = torch.compile(tc_orig, backend='eager')",
        [
            "tc._orig_mod is tc_orig",
            "tc(torch.ones(1, 2)).shape == (1, 2)",
            "torch.equal(tc(torch.ones(1, 2)), tc_orig(torch.ones(1, 2)))",
        ],
    ),
    case(
        "a compiled module and its optimizer",
        "co_net = torch.compile(nn.Linear(2, 2), backend='eager'); co_opt = torch.optim.SGD(co_net.parameters(), 0.1)",
        "co_opt.param_groups[0]['params'][0] is co_net._orig_mod.weight",
    ),
    case(
        "a compiled method in place",
        "ci_net = nn.Linear(2, 2); ci_net.compile(backend='eager')",
        "ci_net(torch.ones(1, 2)).shape == (1, 2)",
        "ci_net.state_dict()",
    ),
    case(
        "a scripted module of a cell",
        """
class ScriptMe(nn.Module):
    def __init__(self): super().__init__(); self.w = nn.Parameter(torch.ones(2))
    def forward(self, x: torch.Tensor) -> torch.Tensor: return x * self.w
script_me = torch.jit.script(ScriptMe())""",
        ["script_me(torch.full((2,), 3.)).tolist() == [3, 3]", "isinstance(script_me, torch.jit.ScriptModule)"],
    ),
    case(
        "a scripted module inside a module",
        "holds_script = nn.Sequential(torch.jit.script(nn.Linear(2, 2)), nn.ReLU())",
        same="holds_script(torch.ones(1, 2))",
    ),
    case(
        "a traced module in a dict",
        "tr_dict = {'m': torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))}",
        same="tr_dict['m'](torch.ones(1, 2))",
    ),
    case(
        "an averaged model (SWA)",
        "swa_src = nn.Linear(2, 2); swa = torch.optim.swa_utils.AveragedModel(swa_src); swa.update_parameters(swa_src)",
        "int(swa.n_averaged) == 1 and swa.module.weight is not swa_src.weight",
        "swa.state_dict()",
    ),
    case(
        "an averaged model with a function of a cell",
        "ema_src = nn.Linear(2, 2)\nema_avg = torch.optim.swa_utils.AveragedModel(ema_src, avg_fn=lambda a, b, n: 0.9 * a + 0.1 * b)",
        "ema_avg.update_parameters(ema_src)\nint(ema_avg.n_averaged) == 1",
    ),
    case(
        "an averaged model with torch's EMA function",
        "ema2_src = nn.Linear(2, 2); ema2 = torch.optim.swa_utils.AveragedModel(ema2_src, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))",
        "ema2.update_parameters(ema2_src)\nint(ema2.n_averaged) == 1",
    ),
    case(
        "modules that inherit in a cell",
        """
class Base_(nn.Module):
    def forward(self, x): return self.head(x)
class Derived_(Base_):
    def __init__(self): super().__init__(); self.head = nn.Linear(2, 1)
derived = Derived_()""",
        ["isinstance(derived, Base_) and Derived_.__mro__[1] is Base_", "derived(torch.ones(1, 2)).shape == (1, 1)"],
    ),
    case(
        "a loss with weights",
        "crit = nn.CrossEntropyLoss(weight=torch.tensor([1., 2.]))",
        same="crit(torch.ones(1, 2), torch.tensor([1]))",
    ),
    case(
        "functional_call",
        "fc_net = nn.Linear(2, 2); fc_params = {k: v.detach() * 2 for k, v in fc_net.named_parameters()}",
        same="torch.func.functional_call(fc_net, fc_params, (torch.ones(1, 2),))",
    ),
    case(
        "a module with __getattr__",
        """
class Deferring(nn.Module):
    def __init__(self, inner): super().__init__(); self.inner = inner
    def __getattr__(self, name):
        try: return super().__getattr__(name)
        except AttributeError: return getattr(self.inner, name)
deferring = Deferring(nn.Linear(2, 2))""",
        "deferring.in_features == 2 and type(deferring) is Deferring",
    ),
    case(
        "a module with __slots__ and properties",
        """
class WithProperty(nn.Module):
    def __init__(self): super().__init__(); self._gain = 2
    @property
    def gain(self): return self._gain
    @gain.setter
    def gain(self, v): self._gain = v
with_property = WithProperty()""",
        "with_property.gain = 7\nwith_property.gain == 7",
    ),
    case(
        "extra state",
        """
class Extra(nn.Module):
    def __init__(self): super().__init__(); self.step = 5
    def get_extra_state(self): return {'step': self.step}
    def set_extra_state(self, s): self.step = s['step']
extra = Extra()""",
        "extra.get_extra_state() == {'step': 5}",
    ),
    case(
        "an fx graph of a class of a cell",
        """
class FxMe(nn.Module):
    def __init__(self): super().__init__(); self.l = nn.Linear(2, 2)
    def forward(self, x): return torch.relu(self.l(x)) + 1
fx_net = torch.fx.symbolic_trace(FxMe())""",
        "isinstance(fx_net, torch.fx.GraphModule)",
        "fx_net(torch.ones(1, 2))",
    ),
    case(
        "a module that was not initialised",
        "class Unready(nn.Module):\n    def __init__(self): pass\nunready = Unready()",
        "type(unready) is Unready",
    ),
    case(
        "checkpointed state in memory",
        "import io\nin_memory = io.BytesIO(); torch.save(nn.Linear(2, 2).state_dict(), in_memory); in_memory.seek(0)",
        "set(torch.load(in_memory)) == {'weight', 'bias'}",
    ),
    case(
        "an optimizer over a scripted module",
        "os_net = torch.jit.script(nn.Linear(2, 2)); os_opt = torch.optim.SGD(os_net.parameters(), 0.1)",
        [
            "os_opt.param_groups[0]['params'][0].data_ptr() == os_net.weight.data_ptr()",
            "w = os_net.weight.detach().clone(); os_net(torch.ones(1, 2)).sum().backward(); os_opt.step()\nnot torch.equal(w, os_net.weight)",
        ],
    ),
]
