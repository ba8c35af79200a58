"""What a session is beside its variables: imports, random streams, switches."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Session facts"
EXAMPLES = "imports, random streams, PyTorch's switches, secrets"
PRELUDE = "import random\nimport numpy as np\nimport torch\nrandom.seed(11); np.random.seed(12); torch.manual_seed(13)\nrandom.random(); np.random.rand(); torch.rand(1)"
CASES = [
    case("Python's random stream", "drawn_py = random.random()", same="[random.random() for _ in range(3)]"),
    case("Python's Gaussian remainder", "random.gauss(0, 1)", same="random.gauss(0, 1)"),
    case("NumPy's global stream", "drawn_np = np.random.rand()", same="np.random.rand(3)"),
    case("NumPy's Gaussian remainder", "np.random.randn()", same="np.random.randn()"),
    case("torch's CPU stream", "drawn_t = torch.rand(1)", same="torch.rand(3)"),
    case("torch's normal stream", "torch.randn(1)", same="torch.randn(3)"),
    case("dropout goes on", "drop = torch.nn.Dropout(0.5)", same="drop(torch.ones(20))"),
    case("shuffling goes on", "deck = list(range(20))", same="random.shuffle(deck)\ndeck"),
    case(
        "a function bound by name follows the seed",
        "from random import randint",
        "random.seed(0); a = randint(0, 10 ** 9); random.seed(0)\na == random.randint(0, 10 ** 9)",
    ),
    case(
        "NumPy's legacy function follows the seed",
        "from numpy.random import rand",
        "np.random.seed(0); a = rand(); np.random.seed(0)\na == np.random.rand()",
    ),
    case(
        "torch's default generator by name", "tdefault = torch.default_generator", "tdefault is torch.default_generator"
    ),
    case("NumPy's legacy stream by name", "legacy = np.random.mtrand._rand", "legacy is np.random.mtrand._rand"),
    case("import numpy as np", "import numpy as np_again", "import sys as _s\nnp_again is _s.modules['numpy']"),
    case(
        "import a.b.c",
        "import os.path\nimport xml.dom.minidom",
        "xml.dom.minidom.parseString('<a/>').documentElement.tagName == 'a'",
    ),
    case(
        "import a.b as c", "import torch.nn.functional as F", "import sys as _s\nF is _s.modules['torch.nn.functional']"
    ),
    case(
        "from math import pi",
        "from math import pi, sqrt",
        "pi == __import__('math').pi and sqrt is __import__('math').sqrt",
    ),
    case(
        "from a import class",
        "from collections import OrderedDict as OD",
        "OD is __import__('collections').OrderedDict",
    ),
    case("from torch import submodules", "from torch import nn, optim", "nn is torch.nn and optim is torch.optim"),
    case(
        "import in a container",
        "mods = {'json': __import__('json'), 'np': np}",
        "mods['np'] is np and mods['json'].dumps(1) == '1'",
    ),
    case("a star import", "from string import *", "ascii_lowercase[:3] == 'abc' and digits == '0123456789'"),
    case(
        "a module made in a cell",
        "import types\nscratch = types.ModuleType('scratch_mod'); scratch.x = [5]",
        "scratch.x == [5]",
    ),
    case(
        "a module that was a file and is gone",
        "import sys, tempfile, os\nmod_dir = tempfile.mkdtemp(); open(mod_dir + '/gone_mod_f.py', 'w').write('y = 3')\nsys.path.insert(0, mod_dir)\nimport gone_mod_f",
        named="gone_mod_f: No module named",
    ),
    case("an import that was aliased twice", "import json as j1; import json as j2", "j1 is j2"),
    case(
        "torch's default dtype",
        "torch.set_default_dtype(torch.float64)",
        ["torch.get_default_dtype() is torch.float64", "torch.ones(1).dtype is torch.float64"],
    ),
    case("torch's thread count", "torch.set_num_threads(1)", "torch.get_num_threads() == 1"),
    case(
        "deterministic algorithms",
        "torch.use_deterministic_algorithms(True, warn_only=True)",
        "torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()",
    ),
    case(
        "cuDNN's switches",
        "torch.backends.cudnn.deterministic = True; torch.backends.cudnn.benchmark = False",
        "torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark",
    ),
    case(
        "matmul precision",
        "torch.set_float32_matmul_precision('high')",
        "torch.get_float32_matmul_precision() == 'high'",
    ),
    case("gradient mode", "torch.set_grad_enabled(False)", "not torch.is_grad_enabled()"),
    case(
        "the default device",
        "torch.set_default_device('meta'); torch.set_default_device('cpu')",
        "torch.ones(1).device.type == 'cpu'",
    ),
    case("anomaly detection", "torch.autograd.set_detect_anomaly(True)", "torch.is_anomaly_enabled()"),
    case(
        "the working directory is told, not changed",
        "import os\nstarted_in = os.getcwd(); os.chdir(tempfile.mkdtemp())",
        ["os.path.isdir(started_in)"],
        named="working: directory was",
    ),
    case(
        "the recursion limit",
        "sys.setrecursionlimit(5000)",
        "sys.getrecursionlimit() == 5000",
        known="the interpreter's own limits are not restored: a limit set too high crashes",
    ),
    case(
        "NumPy's print options",
        "np.set_printoptions(precision=3)",
        "np.get_printoptions()['precision'] == 3",
        known="how things are printed is no variable; run the cell again",
    ),
    case(
        "environment variables",
        "os.environ['FIDELITY_X'] = '1'",
        "os.environ.get('FIDELITY_X') == '1'",
        known="environment variables hold secrets and are never written; run the cell again",
    ),
    case("In and Out are not written", "5", "'In' in globals() and isinstance(In, list)"),
    case("what begins with one underscore is the user's", "_private = {'a': 1}; _x9 = 4", same=["_private", "_x9"]),
    case("names that only look like IPython's", "_input = 'mine'; __dunder = 2", "_input == 'mine'"),
    case("a name that shadows a builtin", "list_ = list; max = 7", "max == 7 and list_ is list"),
    case("annotations of the session", "typed: int = 4", "typed == 4"),
    case(
        "a secret by value is named, not written",
        "api_value = 'sk-' + 'a' * 30",
        "'api_value' not in globals() or api_value.startswith('sk-')",
        named="api_value: secret",
    ),
    case(
        "ordinary words of the field are no secrets",
        "tokenizer = {'a': 1}; token_ids = [1, 2]; tokens = ['a', 'b']; key = 'k'; n_keys = 3; secret_santa_df = [1]",
        same=["tokenizer", "token_ids", "tokens", "key", "n_keys", "secret_santa_df"],
    ),
]
