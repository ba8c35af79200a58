"""Two names of one object stay one; what was separate stays separate."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Identity across names"
EXAMPLES = "aliases, cycles, tied weights, optimizers of their model"
PRELUDE = "import torch, copy, collections, functools, weakref\nfrom torch import nn"
_NAN = "a float is a value to pickle: a NaN comes back bit for bit, as another object"
CASES = [
    case("two names of one list", "one = [1]; also_one = one", "one is also_one", "one"),
    case("two equal lists stay two", "left = [1]; right = [1]", ["left is not right", "left == right"]),
    case("a list that holds itself", "ouroboros = []; ouroboros.append(ouroboros)", "ouroboros[0] is ouroboros"),
    case(
        "two dicts that hold each other",
        "yin = {}; yang = {'yin': yin}; yin['yang'] = yang",
        "yin['yang'] is yang and yang['yin'] is yin",
    ),
    case(
        "a tuple within its own list",
        "shell_list = []; shell_tuple = (shell_list,); shell_list.append(shell_tuple)",
        "shell_list[0] is shell_tuple and shell_tuple[0] is shell_list",
    ),
    case(
        "a row of a table by its own name",
        "rows = [{'n': i} for i in range(3000)]; row17 = rows[17]",
        "rows[17] is row17",
    ),
    case(
        "one list in many containers",
        "pool = [0]; in_dict = {'p': pool}; in_tuple = (pool,); in_set_like = [pool]",
        "in_dict['p'] is in_tuple[0] is in_set_like[0] is pool",
    ),
    case(
        "a config that a trainer holds",
        """
class Trainer: pass
trainer = Trainer(); trainer_cfg = {'lr': 0.1}; trainer.cfg = trainer_cfg; trainer.me = trainer
same_trainer = trainer""",
        ["trainer.cfg is trainer_cfg", "trainer.me is trainer is same_trainer", "type(trainer) is Trainer"],
    ),
    case(
        "a parent and a child that know each other",
        """
class Node:
    def __init__(self, up=None): self.up = up; self.down = []; up and up.down.append(self)
root = Node(); leaf = Node(root)""",
        "root.down[0] is leaf and leaf.up is root",
    ),
    case(
        "an alias of a parameter",
        "net_alias = nn.Linear(2, 2); its_weight = net_alias.weight",
        "its_weight is net_alias.weight",
        "its_weight",
    ),
    case(
        "tied weights",
        "tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)); tied[1].weight = tied[0].weight",
        ["tied[0].weight is tied[1].weight", "len(list(tied.parameters())) == 3"],
    ),
    case(
        "tied embedding and head",
        """
emb_in = nn.Embedding(5, 4); lm_head = nn.Linear(4, 5, bias=False); lm_head.weight = emb_in.weight""",
        "lm_head.weight is emb_in.weight",
    ),
    case(
        "an EMA copy stays separate",
        "student = nn.Linear(2, 2); ema_copy = copy.deepcopy(student)",
        [
            "ema_copy.weight is not student.weight",
            "ema_copy.weight.data_ptr() != student.weight.data_ptr()",
            "torch.equal(ema_copy.weight, student.weight)",
        ],
    ),
    case(
        "an EMA dict of detached tensors",
        "ema_net = nn.Linear(2, 2); ema_state = {k: v.detach().clone() for k, v in ema_net.state_dict().items()}",
        "ema_state['weight'].data_ptr() != ema_net.weight.data_ptr()",
        "ema_state",
    ),
    case(
        "a state_dict that shares memory",
        "sd_net = nn.Linear(2, 2); live_sd = sd_net.state_dict()",
        "with torch.no_grad(): sd_net.weight.fill_(7.)\nlive_sd['weight'].eq(7).all().item()",
    ),
    case(
        "optimizer and model",
        "im_net = nn.Linear(2, 2); im_opt = torch.optim.SGD(im_net.parameters(), 0.1, momentum=0.9)",
        "all(a is b for a, b in zip(im_net.parameters(), im_opt.param_groups[0]['params']))",
    ),
    case(
        "two optimizers over one model",
        """
two_net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
opt_body = torch.optim.SGD(two_net[0].parameters(), 0.1); opt_head = torch.optim.Adam(two_net[1].parameters(), 0.2)""",
        [
            "opt_body.param_groups[0]['params'][0] is two_net[0].weight",
            "opt_head.param_groups[0]['params'][0] is two_net[1].weight",
        ],
    ),
    case(
        "several parameter groups",
        """
pg_net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
pg_opt = torch.optim.AdamW([{'params': pg_net[0].parameters(), 'lr': 0.1}, {'params': pg_net[1].parameters()}], lr=0.3)""",
        [
            "pg_opt.param_groups[1]['params'][1] is pg_net[1].bias",
            "[g['lr'] for g in pg_opt.param_groups] == [0.1, 0.3]",
        ],
    ),
    case(
        "a scheduler bound to its optimizer",
        """
sb_net = nn.Linear(2, 2); sb_opt = torch.optim.SGD(sb_net.parameters(), 0.1); sb_sched = torch.optim.lr_scheduler.StepLR(sb_opt, 1, 0.5)""",
        ["sb_sched.optimizer is sb_opt", "sb_opt.step(); sb_sched.step()\nsb_opt.param_groups[0]['lr'] == 0.05"],
    ),
    case(
        "one learning rate tensor in two places",
        "lr_t = torch.tensor(0.5); lr_net = nn.Linear(1, 1); lr_opt = torch.optim.Adam(lr_net.parameters(), lr=lr_t)",
        "lr_opt.param_groups[0]['lr'] is lr_t",
    ),
    case(
        "a closure over a model",
        """
cl_net = nn.Linear(2, 2)
def make_predict(m):
    def predict(x): return m(x)
    return predict
cl_predict = make_predict(cl_net)""",
        "cl_predict.__closure__[0].cell_contents is cl_net",
    ),
    case(
        "two closures over one cell",
        """
def counter():
    n = 0
    def up():
        nonlocal n; n += 1; return n
    def now(): return n
    return up, now
up, now = counter(); up()""",
        ["up.__closure__[0] is now.__closure__[0]", "up() == now() == 2"],
    ),
    case(
        "a bound method of a named object",
        """
class Speaker:
    def say(self): return self.word
speaker = Speaker(); speaker.word = 'hi'; say = speaker.say""",
        ["say.__self__ is speaker", "speaker.word = 'ho'\nsay() == 'ho'"],
    ),
    case("a bound method of a builtin object", "sink = []; push = sink.append", "push(5)\nsink[-1] == 5"),
    case(
        "a partial over a named list",
        "p_list = []; p_push = functools.partial(p_list.append, 1)",
        "p_push()\np_list[-1] == 1",
    ),
    case(
        "a default argument that is a named list",
        "d_log = []\ndef d_note(x, log=d_log): log.append(x)",
        "d_note(4)\nd_log[-1] == 4",
    ),
    case(
        "a function attribute that is a named dict",
        "f_cache = {}\ndef f_cached(): return f_cached.cache\nf_cached.cache = f_cache",
        "f_cached() is f_cache",
    ),
    case(
        "a class attribute that is a named list",
        "registry_list = []\nclass Reg: items = registry_list",
        "Reg.items is registry_list",
    ),
    case(
        "a module's hook that holds a named list",
        """
seen_by_hook = []
hooked = nn.Linear(2, 2)
def note_shape(module, args, out): seen_by_hook.append(tuple(out.shape))
hook_handle = hooked.register_forward_hook(note_shape)""",
        [
            "hooked(torch.ones(1, 2))\nseen_by_hook[-1] == (1, 2)",
            "n = len(seen_by_hook); hook_handle.remove(); hooked(torch.ones(1, 2))\nlen(seen_by_hook) == n",
        ],
    ),
    case(
        "a weak reference to a named object",
        """
class Target: pass
target = Target(); to_target = weakref.ref(target)""",
        "to_target() is target",
    ),
    case(
        "a weak key dictionary",
        """
class WKey: pass
wkey = WKey(); wkd = weakref.WeakKeyDictionary(); wkd[wkey] = 'v'""",
        "wkd[wkey] == 'v'",
    ),
    case(
        "a weak value dictionary",
        """
class WVal: pass
wval = WVal(); wvd = weakref.WeakValueDictionary(); wvd['k'] = wval""",
        "wvd['k'] is wval",
    ),
    case(
        "a weak set",
        """
class WMember: pass
wmember = WMember(); wset = weakref.WeakSet([wmember])""",
        "wmember in wset and len(wset) == 1",
    ),
    case("a dead weak reference", "class Gone: pass\ndead_ref = weakref.ref(Gone())", "dead_ref() is None"),
    case(
        "a weak proxy",
        "class Proxied: word = 'x'\nproxied = Proxied(); proxy = weakref.proxy(proxied)",
        "proxied.word = 'y'\nproxy.word == 'y'",
    ),
    case(
        "a weak method",
        "class Wm:\n    def f(self): return 3\nwm_obj = Wm(); wm_ref = weakref.WeakMethod(wm_obj.f)",
        "wm_ref()() == 3 and wm_ref().__self__ is wm_obj",
    ),
    case("keys that are objects", "class Key: pass\nkey = Key(); by_key = {key: 1}", "by_key[key] == 1"),
    case("a set of objects", "class Member: pass\nmember = Member(); members = {member}", "member in members"),
    case(
        "a set that holds an object that holds the set",
        "class Loop: pass\nlooped = Loop(); loop_set = {looped}; looped.home = loop_set",
        "looped in loop_set and looped.home is loop_set",
    ),
    case(
        "a chain map over named dicts",
        "cm_a = {}; cm_b = {'x': 1}; chain = collections.ChainMap(cm_a, cm_b)",
        "cm_b['y'] = 2\nchain['y'] == 2",
    ),
    case(
        "a NaN key is found by identity",
        "nan = float('nan'); by_nan = {nan: 'found'}",
        "by_nan[nan] == 'found'",
        known=_NAN,
    ),
    case(
        "a NaN in a list is found by identity",
        "nan_item = float('nan'); with_nan = [nan_item]",
        "nan_item in with_nan",
        known=_NAN,
    ),
    case("a tensor as a key", "t_key = torch.ones(2); by_tensor = {t_key: 'v'}", "by_tensor[t_key] == 'v'"),
    case(
        "a parameter as a key",
        "pk_net = nn.Linear(1, 1); by_param = {p: n for n, p in pk_net.named_parameters()}",
        "by_param[pk_net.bias] == 'bias'",
    ),
    case(
        "one object in a thousand places",
        "hub = {}; spokes = [hub] * 1000",
        "len({id(s) for s in spokes}) == 1 and spokes[0] is hub",
    ),
    case(
        "a deep chain of objects",
        """
class Link: pass
first_link = link = Link()
for _ in range(150): link.next = Link(); link = link.next
last_link = link""",
        "c = first_link\nwhile hasattr(c, 'next'): c = c.next\nc is last_link",
    ),
    case(
        "a sentinel object", "MISSING = object()\ndef has(x=MISSING): return x is not MISSING", "has(1) and not has()"
    ),
    case(
        "a linked list of three thousand nodes",
        """
class Cell_: pass
deep_first = deep = Cell_()
for _ in range(3000): deep.next = Cell_(); deep = deep.next""",
        "n = 0; c = deep_first\nwhile c is not deep: c = c.next; n += 1\nn == 3000",
    ),
    case(
        "two names of a path of an own class",
        "import pathlib\nclass OwnPath(type(pathlib.Path())): pass\nown_path = also_own_path = OwnPath('x')",
        "own_path is also_own_path",
    ),
    case(
        "functions of exec and their namespace",
        """
exec_ns = {'exec_n': 1}
exec('def exec_get(): return exec_n\\ndef exec_put(v):\\n    global exec_n\\n    exec_n = v', exec_ns)
exec_get = exec_ns['exec_get']""",
        [
            "exec_get is exec_ns['exec_get'] and exec_get.__globals__ is exec_ns",
            "exec_ns['exec_put'](5)\nexec_ns['exec_n'] == exec_get() == 5",
        ],
    ),
    case(
        "globals() by a name",
        "all_globals = globals(); in_globals = [1]",
        "all_globals is globals() and all_globals['in_globals'] is in_globals",
    ),
    case(
        "a named tuple in two places",
        "Pt2 = collections.namedtuple('Pt2', 'x y'); pt2 = Pt2(1, [2]); pt2_too = [pt2]",
        "pt2_too[0] is pt2 and type(pt2) is Pt2",
    ),
    case(
        "a name that a library's module has too",
        "from matplotlib import rcParams",
        "import matplotlib\nrcParams is matplotlib.rcParams",
        known="pickle copies: what is changed in it does not reach the library",
    ),
    case(
        "a logger's level",
        "import logging\nown_logger = logging.getLogger('identity.own'); own_logger.setLevel(logging.DEBUG)",
        "own_logger is logging.getLogger('identity.own')",
        named="own_logger: By name only, without level and handlers",
    ),
    case(
        "the dictionary of an object by a name",
        "import argparse\nown_args = argparse.Namespace(lr=1); own_config = vars(own_args)",
        "own_config is vars(own_args)",
    ),
    case(
        "an object that is its own dictionary",
        "class AttrDict(dict):\n    def __init__(self, **k): super().__init__(**k); self.__dict__ = self\nattr_dict = AttrDict(lr=1)",
        "attr_dict.lr = 2\nattr_dict['lr'] == 2 and attr_dict.__dict__ is attr_dict",
    ),
    case(
        "views of a dictionary",
        "viewed = {'a': 1}; view_keys, view_values, view_items = viewed.keys(), viewed.values(), viewed.items()",
        "viewed['b'] = 2\nlist(view_keys) == ['a', 'b'] and list(view_values) == [1, 2] and len(view_items) == 2",
    ),
    case(
        "a module that an import does not find, and its functions",
        """
import types
loose = types.ModuleType('loose')
exec('loose_n = 0\\ndef loose_bump():\\n    global loose_n\\n    loose_n += 1\\n    return loose_n', vars(loose))
loose_bump = loose.loose_bump; loose_bump()""",
        ["loose_bump is loose.loose_bump", "loose_bump() == loose.loose_n == 2"],
    ),
]
