"""What must never happen, whatever is in the namespace."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "What never happens"
EXAMPLES = "no cell runs again, no file is opened, your own pickle stays as it was"
PRELUDE = "import os, pickle, sys, tempfile, random\nimport numpy as np\nimport torch\nrule_dir = tempfile.mkdtemp()"
CASES = [
    case("a cell is not run again", "open(rule_dir + '/ran', 'a').write('x')", "open(rule_dir + '/ran').read() == 'x'"),
    case(
        "an __init__ is not called again",
        "class Inits:\n    def __init__(self): open(rule_dir + '/inits', 'a').write('x')\ninits = Inits()",
        "open(rule_dir + '/inits').read() == 'x' and type(inits) is Inits",
    ),
    case(
        "a file is not truncated",
        "open(rule_dir + '/t', 'w').write('data'); writing = open(rule_dir + '/t', 'r+')",
        "open(rule_dir + '/t').read() == 'data'",
        named="writing: an open file",
    ),
    case(
        "a file open for writing is not reopened",
        "w_file = open(rule_dir + '/w', 'w'); w_file.write('kept'); w_file.flush()",
        "open(rule_dir + '/w').read() == 'kept'",
        named="w_file: an open file",
    ),
    case(
        "pickle refuses what it refused",
        "refused_before = True",
        "import threading as _t\ntry:\n    pickle.dumps(_t.Lock()); refused = False\nexcept TypeError:\n    refused = True\nrefused",
    ),
    case(
        "pickle's dispatch table is Python's",
        "dispatch_len = len(pickle._Pickler.dispatch)",
        "len(pickle._Pickler.dispatch) == dispatch_len",
    ),
    case(
        "copyreg's table is Python's",
        "import copyreg\ncopyreg_keys = sorted(map(str, copyreg.dispatch_table))",
        "import copyreg as _c\nall(not getattr(f, '__module__', '').startswith('ipyrescue') for f in _c.dispatch_table.values())",
    ),
    case(
        "the user's pickle of a class of a cell",
        "class Pick:\n    def __init__(self): self.a = 1\npick = Pick()",
        "pickle.loads(pickle.dumps(pick)).a == 1 and type(pickle.loads(pickle.dumps(pick))) is Pick",
    ),
    case(
        "the user's pickle of a function of a cell",
        "def pick_f(): return 1",
        "pickle.loads(pickle.dumps(pick_f)) is pick_f",
    ),
    case(
        "the user's deep copy",
        "import copy\ncp_src = {'t': torch.ones(2), 'a': np.ones(2)}",
        "d = copy.deepcopy(cp_src); d['t'][0] = 5\ncp_src['t'][0].item() == 1",
    ),
    case(
        "the user's torch.save",
        "import io\nts_net = torch.nn.Linear(1, 1)",
        "b = io.BytesIO(); torch.save(ts_net, b); b.seek(0)\ntorch.equal(torch.load(b, weights_only=False).weight, ts_net.weight)",
    ),
    case(
        "the user's joblib",
        "import joblib\njl = {'a': np.arange(3)}",
        "joblib.dump(jl, rule_dir + '/j'); (joblib.load(rule_dir + '/j')['a'] == jl['a']).all()",
    ),
    case(
        "the user's multiprocessing",
        "import multiprocessing as mp_\ndef mp_square(x): return x * x",
        "with mp_.get_context('fork').Pool(1) as pool: got = pool.map(mp_square, [1, 2])\ngot == [1, 4]",
    ),
    case(
        "__main__ is the namespace",
        "marker = 1",
        "sys.modules['__main__'].__dict__ is globals() is get_ipython().user_ns",
    ),
    case(
        "no random number is drawn by a snapshot",
        "random.seed(3); np.random.seed(3); torch.manual_seed(3); first_draws = None",
        "import ipyrescue as _r\ndef draw(): return (random.random(), float(np.random.rand()), torch.rand(1).item())\nrandom.seed(3); np.random.seed(3); torch.manual_seed(3); expected = draw()\nrandom.seed(3); np.random.seed(3); torch.manual_seed(3); _r.checkpoint()\ndraw() == expected",
    ),
    case(
        "warnings filters are untouched",
        "import warnings\nfilters_before = len(warnings.filters)",
        "import ipyrescue as _r\nn = list(warnings.filters); _r.checkpoint()\nwarnings.filters == n",
    ),
    case("the collector is as it was", "import gc\ngc_was = gc.isenabled()", "gc.isenabled() == gc_was"),
    case(
        "a snapshot leaves objects alone",
        "alone = torch.nn.Linear(2, 2); alone_ids = [id(p) for p in alone.parameters()]",
        "import ipyrescue as _r\nbefore = [id(p) for p in alone.parameters()]; v = [p._version for p in alone.parameters()]; _r.checkpoint()\nbefore == [id(p) for p in alone.parameters()] and v == [p._version for p in alone.parameters()]",
    ),
    case(
        "unrelated names are not welded",
        "weld_word = 'shared'; weld_a = {'w': weld_word, 'd': np.dtype('f4'), 't': torch.float32, 's': (3, 3)}; weld_b = {'w': weld_word, 'd': np.dtype('f4'), 't': torch.float32, 's': weld_a['s']}",
        "import ipyrescue as _r\ns = _r.checkpoint()\nnot any({'weld_a', 'weld_b'} <= set(g.names) for g in s.groups)",
    ),
    case(
        "a class welds no instances",
        "class Weld: pass\nweld_c, weld_d = Weld(), Weld()",
        "import ipyrescue as _r\ns = _r.checkpoint()\nnot any({'weld_c', 'weld_d'} <= set(g.names) for g in s.groups)",
    ),
    case(
        "a module welds nothing",
        "weld_e, weld_f = [np], [np]",
        "import ipyrescue as _r\ns = _r.checkpoint()\nnot any({'weld_e', 'weld_f'} <= set(g.names) for g in s.groups)",
    ),
    case(
        "a function of a cell welds nothing",
        "def weld_fn(): return 1\nweld_g, weld_h = [weld_fn], [weld_fn]",
        "weld_g[0] is weld_fn and weld_h[0] is weld_fn",
    ),
    case(
        "an edited class stays edited until a restore",
        "class Edited:\n    v = 1\nedited = Edited()",
        "import ipyrescue as _r\ns = _r.checkpoint(); Edited.v = 5; edited_ref = Edited; _r.restore(s.id, names=['edited'])\nedited_ref.v == 5",
    ),
    case(
        "restore into the living session keeps what was made since",
        "old_one = 1",
        "import ipyrescue as _r\ns = _r.checkpoint(); made_since = 7; _r.restore(s.id, names=['old_one'])\nmade_since == 7 and old_one == 1",
    ),
    case(
        "a single name of many",
        "one_of_many = [1]; other_of_many = [2]",
        "import ipyrescue as _r\nhold = other_of_many; s = _r.checkpoint(); _r.restore(s.id, names=['one_of_many'])\nother_of_many is hold",
    ),
    case(
        "atexit and signal handlers are untouched",
        "import signal\nsigterm_was = None",
        "signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.getsignal(signal.SIGTERM))",
    ),
    case("sys.path is untouched", "path_len = None", "not any('ipyrescue_' in p for p in sys.path)"),
]
