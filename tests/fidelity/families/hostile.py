"""Objects that misbehave cost themselves, and nothing else."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Hostile objects"
EXAMPLES = "what raises, exits or recurses when it is saved or loaded"
PRELUDE = "import torch\nkept_first = {'before': [1, 2]}"


def _raises(number: int, name: str, statement: str, told: str):
    cell = f"""
class Raises{number}:
    def __reduce__(self): {statement}
raises_{number} = Raises{number}(); beside_{number} = ['kept {number}']"""
    return case(
        f"__reduce__ that raises {name}",
        cell,
        f"beside_{number} == ['kept {number}']",
        named=f"raises_{number}: {told}",
    )


_RAISED = {
    "ValueError": ("raise ValueError('no')", "no"),
    "SystemExit": ("raise SystemExit(3)", "SystemExit"),
    "RecursionError": ("return self.__reduce__()", "recursion"),
    "NotImplementedError": ("raise NotImplementedError('never')", "never"),
    "GeneratorExit": ("raise GeneratorExit", "GeneratorExit"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "MemoryError": ("raise MemoryError", "MemoryError"),
    "StopIteration": ("raise StopIteration", "StopIteration"),
    "OSError": ("raise OSError(5, 'disk')", "disk"),
    "AssertionError": ("assert False", "AssertionError"),
    "a BaseException of its own": ("raise type('Own', (BaseException,), {})()", "Own"),
}
_ENDS = {
    "sleeps for ever": ("time.sleep(1e6)", "did not end"),
    "ends the process": ("os._exit(0)", "ends the process"),
    "crashes": ("ctypes.string_at(0)", "crashes the process (SIGSEGV)"),
    "is killed": ("os.kill(os.getpid(), 9)", "crashes the process (SIGKILL)"),
}

CASES = [
    *(_raises(i, name, *how) for i, (name, how) in enumerate(_RAISED.items())),
    case(
        "a reduce that returns nonsense",
        "class Nonsense:\n    def __reduce__(self): return 5\nnonsense = Nonsense(); by_nonsense = 1",
        "by_nonsense == 1",
        named="nonsense: ",
    ),
    case(
        "a reduce that returns a wrong tuple",
        "class WrongTuple:\n    def __reduce__(self): return (5, 6)\nwrong_tuple = WrongTuple()",
        named="wrong_tuple: ",
    ),
    case(
        "getattr that raises",
        "class BadAttr:\n    def __getattribute__(self, n): raise RuntimeError(n)\nbad_attr = BadAttr(); by_bad_attr = 2",
        "by_bad_attr == 2",
        named="bad_attr: ",
    ),
    case(
        "a class property that lies",
        "class Liar:\n    @property\n    def __class__(self): raise RuntimeError('no')\nliar = Liar(); by_liar = 3",
        "by_liar == 3",
    ),
    case(
        "a class property that says it is a dict",
        "class Pretends:\n    __class__ = dict\npretends = Pretends(); by_pretends = 3",
        "by_pretends == 3 and Pretends.__dict__['__class__'] is dict",
        named="pretends: wrong class",
    ),
    case(
        "an exception whose text raises",
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no')\nclass MuteReduce:\n    def __reduce__(self): raise Mute()\nmute = MuteReduce(); by_mute = 4",
        "by_mute == 4",
        named="mute: ",
    ),
    case(
        "a repr that raises",
        "class BadRepr:\n    def __repr__(self): raise RuntimeError('no')\nbad_repr = BadRepr()",
        "type(bad_repr) is BadRepr",
    ),
    case(
        "an eq that raises",
        "class BadEq:\n    def __eq__(self, o): raise RuntimeError('no')\n    __hash__ = object.__hash__\nbad_eq = BadEq(); in_set = {bad_eq}",
        "type(bad_eq) is BadEq and any(x is bad_eq for x in in_set)",
    ),
    case(
        "a bool that raises",
        "class BadBool:\n    def __bool__(self): raise RuntimeError('no')\n    def __len__(self): raise RuntimeError('no')\nbad_bool = BadBool()",
        "type(bad_bool) is BadBool",
    ),
    case(
        "a hash that fails on load",
        "class BadHash:\n    armed = False\n    def __hash__(self): return self.h\n    def __init__(self): self.h = 1\nbad_hash = {BadHash(): 1}; by_bad_hash = 5",
        "by_bad_hash == 5",
    ),
    case(
        "it pickles but does not load",
        "class NoLoad:\n    def __reduce__(self): return no_load, ()\ndef no_load(): raise ValueError('not today')\nno_load_obj = NoLoad.__new__(NoLoad); by_no_load = 6",
        "by_no_load == 6",
        named="no_load_obj: not today",
    ),
    case(
        "setstate that raises",
        "class BadSet:\n    def __init__(self): self.x = 1\n    def __setstate__(self, s): raise ValueError('bad state')\nbad_set = BadSet(); by_bad_set = 7",
        "by_bad_set == 7",
        named="bad_set: bad state",
    ),
    case(
        "setstate that exits",
        "class ExitSet:\n    def __init__(self): self.x = 1\n    def __setstate__(self, s): raise SystemExit\nexit_set = ExitSet(); by_exit_set = 8",
        "by_exit_set == 8",
        named="exit_set: SystemExit",
    ),
    case(
        "it mutates itself while it is pickled",
        "class Mutates:\n    def __init__(self): self.n = 0\n    def __getstate__(self): self.n += 1; return dict(self.__dict__)\nmutates = Mutates(); by_mutates = 9",
        "by_mutates == 9 and mutates.n in (0, 1)",
    ),
    case(
        "it takes a part of itself away while it is pickled",
        "class Robs:\n    def __init__(self): self.line, self.x = 'open', [1]\n    def __getstate__(self):\n        state = self.__dict__; state.pop('line', None); return state\nrobs = Robs()",
        "robs.x == [1]",
    ),
    *(
        case(
            f"__reduce__ that {name}",
            f"""
import os, time, ctypes
class Ends{number}:
    def __reduce__(self): {statement}
ends_{number} = Ends{number}(); in_list_{number} = [ends_{number}]; after_{number} = ['kept {number}']""",
            f"after_{number} == ['kept {number}']",
            named=[f"ends_{number}: {told}", f"in_list_{number}: list that holds Ends{number}"],
        )
        for number, (name, (statement, told)) in enumerate(_ENDS.items())
    ),
    case(
        "a dict that grows while it is pickled",
        "grows = {}\nclass Grower:\n    def __reduce__(self): grows[len(grows)] = 1; return int, ()\ngrows['g'] = Grower(); by_grows = 10",
        "by_grows == 10",
    ),
    case(
        "a generator in a list costs the list",
        "gen_list = [1, (i for i in [])]; by_gen_list = 11",
        "by_gen_list == 11",
        named="gen_list: generator",
    ),
    case(
        "what is also reachable by its own name stays",
        "inside_bad = {'data': [1, 2, 3]}; bad_box = [inside_bad, (i for i in [])]",
        "inside_bad == {'data': [1, 2, 3]}",
        named="bad_box: generator",
    ),
    case(
        "a model in an unsaveable box stays",
        "boxed_net = torch.nn.Linear(2, 2); bad_trainer = {'net': boxed_net, 'f': open('/dev/null')}",
        same="boxed_net.state_dict()",
        named="bad_trainer: an open file",
    ),
    case(
        "an optimizer that shares with an unsaveable box stays with its model",
        "bx_net = torch.nn.Linear(1, 1); bx_opt = torch.optim.SGD(bx_net.parameters(), 0.1); bx_bad = [bx_opt, (i for i in [])]",
        "bx_opt.param_groups[0]['params'][0] is bx_net.weight",
        named="bx_bad: generator",
    ),
    case(
        "a class that cannot be saved costs its instances",
        "class Holds:\n    f = open('/dev/null')\nholds_obj = Holds(); by_holds = 12",
        "by_holds == 12",
        named=["Holds: an open file", "holds_obj: class"],
    ),
    case(
        "a function over an unsaveable default",
        "def bad_default(f=open('/dev/null')): return 1\nby_bad_default = 13",
        "by_bad_default == 13",
        named="bad_default: an open file",
    ),
    case(
        "a closure over a generator",
        "def over_gen():\n    g = (i for i in [])\n    return lambda: g\nbad_closure = over_gen(); by_closure = 14",
        "by_closure == 14",
        named="bad_closure: generator",
    ),
    case(
        "a half-made module",
        "class Half(torch.nn.Module):\n    def __init__(self): pass\nhalf = Half(); by_half = 15",
        "by_half == 15",
    ),
    case(
        "a half-made optimizer",
        "class HalfO(torch.optim.SGD):\n    def __init__(self): pass\nhalf_o = HalfO(); by_half_o = 16",
        "by_half_o == 16",
    ),
    case(
        "a metaclass that hides",
        "class Hides(type):\n    def __getattribute__(cls, n): raise RuntimeError(n)\nclass Hidden(metaclass=Hides): pass\nhidden = Hidden(); by_hidden = 17",
        "by_hidden == 17",
        known="",
    ),
    case(
        "a metaclass with a bad isinstance",
        "class BadMeta(type):\n    def __instancecheck__(cls, o): raise RuntimeError('no')\n    def __subclasscheck__(cls, o): raise RuntimeError('no')\nclass BadM(metaclass=BadMeta): pass\nbad_m = BadM(); by_bad_m = 18",
        "by_bad_m == 18 and type(bad_m) is BadM",
    ),
    case(
        "a module that raises on getattr",
        "import types\nclass RudeModule(types.ModuleType):\n    def __getattr__(self, n): raise RuntimeError(n)\nrude_module = RudeModule('rude'); by_rude_module = 19",
        "by_rude_module == 19",
    ),
    case(
        "a nesting that is too deep",
        "nest_list = []\nfor _ in range(100_000): nest_list = [nest_list]\nby_nest = 20",
        "by_nest == 20",
        named="nest_list: recursion",
    ),
    case(
        "a name that is no identifier",
        "globals()['not a name'] = [1]; by_no_name = 21",
        "by_no_name == 21 and globals()['not a name'] == [1]",
    ),
    case(
        "a warning raised as an error while pickling",
        "class Warns:\n    def __reduce__(self):\n        import warnings; warnings.warn('w'); return int, ()\nwarns = Warns(); by_warns = 22",
        "by_warns == 22",
    ),
    case(
        "prints while it is pickled",
        "class Prints:\n    def __reduce__(self): print('noise'); return int, ()\nprints = Prints(); by_prints = 23",
        "by_prints == 23",
    ),
    case(
        "a lossy reduce is the class's own word",
        "class Lossy:\n    def __reduce__(self): return Lossy, ()\nlossy = Lossy(); lossy.x = 1",
        "type(lossy) is Lossy",
    ),
    case(
        "a descriptor that raises in a class",
        "class BadDesc:\n    def __get__(self, o, t=None): raise RuntimeError('no')\nclass HasBad: d = BadDesc()\nhas_bad = HasBad(); by_has_bad = 24",
        "by_has_bad == 24 and type(has_bad) is HasBad",
    ),
    case(
        "changing a dict key's hash",
        "class Mh:\n    def __init__(self, n): self.n = n\n    def __hash__(self): return hash(self.n)\n    def __eq__(self, o): return self.n == o.n\nmh = Mh(1); mh_dict = {mh: 'v'}; mh.n = 2",
        "list(mh_dict.values()) == ['v'] and list(mh_dict)[0] is mh",
    ),
    case(
        "the first variable of the session is untouched",
        "kept_last = kept_first['before']",
        "kept_last is kept_first['before'] == [1, 2]",
    ),
]
