"""Optimizers, schedulers, data loaders: what a loop needs to go on as if nothing had happened."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Training"
EXAMPLES = "optimizers, schedulers, scalers, data loaders, samplers"
PRELUDE = "import warnings; warnings.simplefilter('ignore')\nimport torch, math, random\nimport numpy as np\nfrom torch import nn"

_OPTIMIZERS = {
    "SGD": "SGD({0}, 0.1)",
    "SGD with momentum": "SGD({0}, 0.1, momentum=0.9, nesterov=True)",
    "Adam": "Adam({0}, 0.1)",
    "AdamW, foreach": "AdamW({0}, 0.1, foreach=True)",
    "AdamW, fused": "AdamW({0}, 0.1, fused=True)",
    "Adam, amsgrad": "Adam({0}, 0.1, amsgrad=True)",
    "Adam, capturable": "Adam({0}, 0.1, maximize=True)",
    "Adagrad": "Adagrad({0}, 0.1)",
    "Adadelta": "Adadelta({0})",
    "Adamax": "Adamax({0})",
    "NAdam": "NAdam({0})",
    "RAdam": "RAdam({0})",
    "RMSprop": "RMSprop({0}, 0.1, momentum=0.5)",
    "Rprop": "Rprop({0})",
    "ASGD": "ASGD({0})",
    "Adafactor": "Adafactor({0})",
    "Muon": "Muon([p for p in {0} if p.ndim == 2])",
}
_SCHEDULERS = {
    "StepLR": "StepLR({0}, 2, 0.5)",
    "MultiStepLR": "MultiStepLR({0}, [2, 4])",
    "ExponentialLR": "ExponentialLR({0}, 0.9)",
    "CosineAnnealingLR": "CosineAnnealingLR({0}, 10)",
    "CosineAnnealingWarmRestarts": "CosineAnnealingWarmRestarts({0}, 3)",
    "OneCycleLR": "OneCycleLR({0}, 0.5, total_steps=30)",
    "CyclicLR": "CyclicLR({0}, 0.01, 0.1, step_size_up=3)",
    "CyclicLR with a scale function": "CyclicLR({0}, 0.01, 0.1, scale_fn=lambda x: 0.9 ** x)",
    "LambdaLR with a lambda": "LambdaLR({0}, lambda e: 0.5 ** e)",
    "MultiplicativeLR": "MultiplicativeLR({0}, lambda e: 0.9)",
    "LinearLR": "LinearLR({0})",
    "PolynomialLR": "PolynomialLR({0}, 10)",
    "ConstantLR": "ConstantLR({0})",
    "SequentialLR": "SequentialLR({0}, [ConstantLR({0}, 0.1, 2), ExponentialLR({0}, 0.9)], [2])",
    "ChainedScheduler": "ChainedScheduler([ConstantLR({0}, 0.1, 2), ExponentialLR({0}, 0.9)])",
    "SWALR": "SWALR({0}, 0.05)",
}


def _optimizer(number: int, name: str, expression: str):
    net, opt = f"on_{number}", f"oo_{number}"
    made = expression.format(f"{net}.parameters()")
    step = f"for _ in range(3):\n    {opt}.zero_grad(); {net}(torch.arange(6.).view(2, 3)).square().mean().backward(); {opt}.step()"
    setup = f"{net} = nn.Linear(3, 2, dtype=torch.float32); {opt} = torch.optim.{made}\n{step}"
    same = [f"{opt}.state_dict()", f"{step}\n({net}.state_dict(), {opt}.state_dict())"]
    return case(name, setup, f"type({opt}) is torch.optim.{expression.partition('(')[0]}", same)


def _scheduler(number: int, name: str, expression: str):
    net, opt, sched = f"sn_{number}", f"so_{number}", f"ss_{number}"
    imports = "from torch.optim.lr_scheduler import *\nfrom torch.optim.swa_utils import SWALR\n"
    step = (
        f"rates = []\nfor _ in range(4):\n    {opt}.step(); {sched}.step(); rates.append({opt}.param_groups[0]['lr'])"
    )
    setup = f"{net} = nn.Linear(1, 1); {opt} = torch.optim.SGD({net}.parameters(), 0.1, momentum=0.9)\n{sched} = {expression.format(opt)}\n{opt}.step(); {sched}.step()"
    holder = f"{sched}._schedulers[0]" if name == "ChainedScheduler" else sched
    return case(name, imports + setup, f"{holder}.optimizer is {opt}", f"{step}\nrates")


CASES = [
    *(_optimizer(number, name, expression) for number, (name, expression) in enumerate(_OPTIMIZERS.items())),
    *(_scheduler(number, name, expression) for number, (name, expression) in enumerate(_SCHEDULERS.items())),
    case(
        "LBFGS with its closure",
        """
lb_net = nn.Linear(2, 1); lb_opt = torch.optim.LBFGS(lb_net.parameters())
def lb_closure():
    lb_opt.zero_grad(); loss = lb_net(torch.ones(3, 2)).square().mean(); loss.backward(); return loss
lb_opt.step(lb_closure)""",
        same="lb_opt.step(lb_closure)\nlb_net.state_dict()",
    ),
    case(
        "SparseAdam",
        """
sa_net = nn.Embedding(4, 2, sparse=True); sa_opt = torch.optim.SparseAdam(sa_net.parameters())
def sa_step():
    sa_opt.zero_grad(); sa_net(torch.tensor([1, 2])).sum().backward(); sa_opt.step()
sa_step()""",
        same="sa_step()\nsa_net.state_dict()",
    ),
    case(
        "ReduceLROnPlateau",
        "rp_net = nn.Linear(1, 1); rp_opt = torch.optim.SGD(rp_net.parameters(), 0.1); rp = torch.optim.lr_scheduler.ReduceLROnPlateau(rp_opt, patience=1)\nrp.step(1.0); rp.step(1.0)",
        ["rp.optimizer is rp_opt"],
        "rp.step(1.0); rp.step(1.0)\n(rp_opt.param_groups[0]['lr'], rp.num_bad_epochs)",
    ),
    case(
        "a pickled scheduler still counts the optimizer's steps",
        "cs_net = nn.Linear(1, 1); cs_opt = torch.optim.SGD(cs_net.parameters(), 0.1); cs = torch.optim.lr_scheduler.StepLR(cs_opt, 1)",
        "import warnings as _w\nwith _w.catch_warnings(record=True) as told:\n    _w.simplefilter('always'); cs_opt.step(); cs.step()\nnot [t for t in told if 'before' in str(t.message)]",
    ),
    case(
        "an optimizer of a cell",
        """
class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr): super().__init__(params, {'lr': lr}); self.steps = 0
    @torch.no_grad()
    def step(self, closure=None):
        self.steps += 1
        for g in self.param_groups:
            for p in g['params']: p.add_(p.grad, alpha=-g['lr'])
pl_net = nn.Linear(1, 1); pl_opt = Plain(pl_net.parameters(), 0.1); pl_net.weight.grad = torch.ones(1, 1); pl_net.bias.grad = torch.ones(1); pl_opt.step()""",
        ["type(pl_opt) is Plain", "pl_opt.steps == 1"],
        "pl_opt.step()\npl_net.state_dict()",
    ),
    case(
        "attributes that people put on an optimizer",
        "at_net = nn.Linear(1, 1); at_opt = torch.optim.SGD(at_net.parameters(), 0.1); at_opt.note = 'mine'",
        "at_opt.note == 'mine'",
    ),
    case(
        "an optimizer's step hooks",
        """
sh_calls = []
sh_net = nn.Linear(1, 1); sh_opt = torch.optim.SGD(sh_net.parameters(), 0.1)
sh_handle = sh_opt.register_step_post_hook(lambda *a: sh_calls.append(1))""",
        [
            "n = len(sh_calls); sh_opt.step()\nlen(sh_calls) == n + 1",
            "n = len(sh_calls); sh_handle.remove(); sh_opt.step()\nlen(sh_calls) == n",
        ],
    ),
    case(
        "an optimizer's pre-hook defined in a cell",
        """
ph_calls = []
ph_net = nn.Linear(1, 1); ph_opt = torch.optim.Adam(ph_net.parameters(), 0.1)
def before_step(*a): ph_calls.append('pre')
ph_opt.register_step_pre_hook(before_step)""",
        "ph_opt.step()\nph_calls[-1] == 'pre'",
    ),
    case(
        "an optimizer's state_dict hook",
        "od_net = nn.Linear(1, 1); od_opt = torch.optim.SGD(od_net.parameters(), 0.1)\nod_opt.register_state_dict_post_hook(lambda o, sd: sd.__setitem__('tag', 3))",
        "od_opt.state_dict()['tag'] == 3",
    ),
    case(
        "global optimizer hooks are left alone",
        "gh_net = nn.Linear(1, 1); gh_opt = torch.optim.SGD(gh_net.parameters(), 0.1)",
        "gh_opt.step()\ntype(gh_opt).step is torch.optim.SGD.step",
    ),
    case(
        "the profile name an optimizer steps under",
        "pn_net = nn.Linear(1, 1); pn_opt = torch.optim.SGD(pn_net.parameters(), 0.1)",
        "pn_opt._zero_grad_profile_name == 'Optimizer.zero_grad#SGD.zero_grad'",
    ),
    case(
        "a deep copy of a restored optimizer",
        "dc_net = nn.Linear(1, 1); dc_opt = torch.optim.SGD(dc_net.parameters(), 0.1)",
        "import copy as _c\ntype(_c.deepcopy(dc_opt)) is torch.optim.SGD",
    ),
    case(
        "a GradScaler",
        "scaler = torch.amp.GradScaler('cpu', init_scale=1024.)",
        "scaler.get_scale() == 1024",
        "scaler.state_dict()",
    ),
    case(
        "a GradScaler that has scaled",
        "scaler2 = torch.amp.GradScaler('cpu', init_scale=8.); scaler2.scale(torch.ones(1))",
        same=["scaler2.state_dict()", "scaler2.scale(torch.ones(1))"],
    ),
    case(
        "a GradScaler beside its optimizer",
        """
gs_net = nn.Linear(1, 1); gs_opt = torch.optim.SGD(gs_net.parameters(), 0.1); gs_scaler = torch.amp.GradScaler('cpu', init_scale=4.)
def gs_step():
    gs_opt.zero_grad(); gs_scaler.scale(gs_net(torch.ones(1, 1)).sum()).backward(); gs_scaler.step(gs_opt); gs_scaler.update()
gs_step()""",
        same="gs_step()\n(gs_net.state_dict(), gs_scaler.state_dict())",
    ),
    case(
        "autocast",
        "cast = torch.autocast('cpu', dtype=torch.bfloat16)",
        "with cast:\n    got = torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1))\ngot.dtype is torch.bfloat16",
    ),
    case(
        "a TensorDataset",
        "tds = torch.utils.data.TensorDataset(torch.arange(4.), torch.arange(4))",
        "len(tds) == 4",
        "tds[2]",
    ),
    case(
        "a Dataset of a cell",
        """
class Squares(torch.utils.data.Dataset):
    def __len__(self): return 5
    def __getitem__(self, i): return torch.tensor(i * i)
squares = Squares()""",
        "isinstance(squares, Squares) and squares[3].item() == 9",
    ),
    case(
        "a Subset and a ConcatDataset",
        "sub_ds = torch.utils.data.Subset(list(range(10)), [1, 3]); cat_ds = torch.utils.data.ConcatDataset([sub_ds, sub_ds])",
        "len(cat_ds) == 4 and cat_ds[3] == 3 and cat_ds.datasets[0] is sub_ds",
    ),
    case(
        "a DataLoader",
        "dl = torch.utils.data.DataLoader(list(range(10)), batch_size=3)",
        "[b.tolist() for b in dl][0] == [0, 1, 2] and len(dl) == 4",
    ),
    case(
        "a DataLoader with a generator goes on bit for bit",
        "dg = torch.Generator().manual_seed(3); dgl = torch.utils.data.DataLoader(list(range(20)), batch_size=4, shuffle=True, generator=dg)\nlist(dgl)",
        "dgl.generator is dg",
        "[b.tolist() for b in dgl]",
    ),
    case(
        "a DataLoader with a collate function of a cell",
        "def collate(items): return sum(items)\ncdl = torch.utils.data.DataLoader(list(range(4)), batch_size=2, collate_fn=collate)",
        "list(cdl) == [1, 5]",
    ),
    case(
        "a DataLoader with a lambda for workers",
        "wdl = torch.utils.data.DataLoader([1, 2], worker_init_fn=lambda i: None)",
        "wdl.worker_init_fn(0) is None",
    ),
    case(
        "a weighted sampler",
        "ws = torch.utils.data.WeightedRandomSampler([0.1, 0.9], 5, generator=torch.Generator().manual_seed(1)); list(ws)",
        same="list(ws)",
    ),
    case(
        "a batch sampler of a cell",
        """
class Pairs(torch.utils.data.Sampler):
    def __init__(self): pass
    def __iter__(self): return iter([[0, 1], [2, 3]])
    def __len__(self): return 2
pairs_dl = torch.utils.data.DataLoader(list(range(4)), batch_sampler=Pairs())""",
        "[b.tolist() for b in pairs_dl] == [[0, 1], [2, 3]]",
    ),
    case(
        "a loader's iterator is named",
        "it_loader = torch.utils.data.DataLoader([1, 2]); it = iter(it_loader)",
        "len(it_loader) == 2",
        named="it: cannot be pickled",
    ),
    case(
        "an EMA of a cell",
        """
class EMA:
    def __init__(self, model, decay): self.decay = decay; self.shadow = {k: v.clone() for k, v in model.state_dict().items()}; self.model = model
    @torch.no_grad()
    def update(self):
        for k, v in self.model.state_dict().items(): self.shadow[k].lerp_(v, 1 - self.decay)
e_net = nn.Linear(2, 2); e_ema = EMA(e_net, 0.9)""",
        "e_ema.model is e_net and e_ema.shadow['weight'].data_ptr() != e_net.weight.data_ptr()",
        "e_ema.update()\ne_ema.shadow",
    ),
    case(
        "EarlyStopping and a history",
        """
class EarlyStopping:
    def __init__(self, patience=3): self.best = math.inf; self.left = patience; self.state = None
    def __call__(self, loss, model):
        if loss < self.best: self.best, self.state = loss, {k: v.clone() for k, v in model.state_dict().items()}
stopper = EarlyStopping(); es_net = nn.Linear(1, 1); stopper(0.5, es_net); es_history = [{'epoch': 0, 'loss': 0.5}]""",
        "type(stopper) is EarlyStopping and stopper.best == 0.5",
        "stopper.state",
    ),
    case(
        "a whole training goes on bit for bit",
        """
tr_gen = torch.Generator().manual_seed(0)
tr_x, tr_y = torch.randn(16, 4, generator=tr_gen), torch.randn(16, 1, generator=tr_gen)
tr_net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
tr_opt = torch.optim.AdamW(tr_net.parameters(), 0.01); tr_sched = torch.optim.lr_scheduler.CosineAnnealingLR(tr_opt, 20); tr_losses = []
def tr_train(steps):
    for _ in range(steps):
        order = torch.randperm(16, generator=tr_gen)
        loss = nn.functional.mse_loss(tr_net(tr_x[order]), tr_y[order])
        tr_opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(tr_net.parameters(), 1.0); tr_opt.step(); tr_sched.step(); tr_losses.append(loss.item())
tr_train(4)""",
        same="tr_train(6)\n(tr_losses, tr_net.state_dict(), tr_opt.state_dict())",
    ),
    case(
        "gradients that are accumulated",
        "ac_net = nn.Linear(1, 1); ac_net(torch.ones(1, 1)).backward(); ac_net(torch.ones(1, 1)).backward()",
        "ac_net.weight.grad.item() == 2",
    ),
    case(
        "two models trained in turn",
        """
g_net, d_net = nn.Linear(2, 2), nn.Linear(2, 1)
g_opt, d_opt = torch.optim.Adam(g_net.parameters(), 0.1), torch.optim.Adam(d_net.parameters(), 0.1)
def gan_step():
    for o in (d_opt, g_opt): o.zero_grad(); d_net(g_net(torch.ones(1, 2))).sum().backward(); o.step()
gan_step()""",
        same="gan_step()\n(g_net.state_dict(), d_net.state_dict())",
    ),
    case(
        "a profiler schedule",
        "prof_schedule = torch.profiler.schedule(wait=1, warmup=1, active=2)",
        "prof_schedule(0).name == 'NONE'",
    ),
    case(
        "an open progress bar's plain parts",
        "epochs_done = 3; best_path = 'best.pt'; metrics = {'acc': [0.1, 0.5]}",
        same=["epochs_done", "metrics"],
    ),
    case(
        "an optimizer stays, without the attribute that cannot be saved",
        "ua_net = nn.Linear(1, 1); ua_opt = torch.optim.SGD(ua_net.parameters(), 0.1, momentum=0.9); ua_opt.writer = open('/dev/null')",
        "ua_opt.param_groups[0]['params'][0] is ua_net.weight and type(ua_opt) is torch.optim.SGD",
        named="ua_opt: cannot be saved",
    ),
]
