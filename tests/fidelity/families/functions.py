"""Functions that cells define, closures, and what wraps them."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Functions of cells"
EXAMPLES = "closures, decorators, recursion, async, partials, lambdas"
PRELUDE = "import asyncio, contextlib, functools, itertools, operator, types, typing"
CASES = [
    case(
        "a function sees the live namespace",
        "factor = 10\ndef scale(x): return x * factor",
        ["scale.__globals__ is globals()", "factor = 3\nscale(2) == 6"],
    ),
    case("recursion by name", "def fact(n): return 1 if n < 2 else n * fact(n - 1)", "fact(5) == 120"),
    case(
        "mutual recursion",
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        "even(10) and not even(7)",
    ),
    case(
        "recursion through a closure",
        "def make_rec():\n    def inner(n): return 0 if n == 0 else 1 + inner(n - 1)\n    return inner\nrec = make_rec()",
        "rec(4) == 4",
    ),
    case("a lambda", "square = lambda x: x * x", "square(4) == 16"),
    case("a list of lambdas", "lams = [lambda x, i=i: x + i for i in range(3)]", "[f(1) for f in lams] == [1, 2, 3]"),
    case(
        "late-binding closures share a cell",
        "def late_bound():\n    return [lambda: i for i in range(3)]\nlates = late_bound()",
        "[f() for f in lates] == [2, 2, 2] and lates[0].__closure__[0] is lates[1].__closure__[0]",
    ),
    case(
        "defaults and keyword defaults",
        "def dflt(a, b=[1], *, c={'k': 2}): return a, b, c",
        "dflt(0) == (0, [1], {'k': 2}) and dflt.__kwdefaults__ == {'c': {'k': 2}}",
    ),
    case(
        "positional only and variadic",
        "def sig(a, /, b, *rest, c, **more): return a, b, rest, c, more",
        "import inspect as _i\nsig(1, 2, 3, c=4, d=5) == (1, 2, (3,), 4, {'d': 5}) and str(_i.signature(sig)) == '(a, /, b, *rest, c, **more)'",
    ),
    case(
        "annotations",
        "def ann(x: int, y: 'str' = 'a') -> list[int]: ...",
        "ann.__annotations__ == {'x': int, 'y': 'str', 'return': list[int]}",
    ),
    case(
        "annotations of a cell's class",
        "class AType: pass\ndef takes(x: AType) -> AType: return x",
        "takes.__annotations__['x'] is AType",
    ),
    case(
        "doc, name, attributes",
        "def documented():\n    '''Doc.'''\ndocumented.tag = [1]",
        "documented.__doc__ == 'Doc.' and documented.__name__ == 'documented' and documented.tag == [1] and documented.__module__ == '__main__'",
    ),
    case(
        "a decorated function",
        "def twice(f):\n    @functools.wraps(f)\n    def wrapper(*a): return 2 * f(*a)\n    return wrapper\n@twice\ndef three(): return 3",
        "three() == 6 and three.__wrapped__() == 3 and three.__name__ == 'three'",
    ),
    case(
        "a decorator with arguments",
        "def times(n):\n    def deco(f):\n        return lambda *a: n * f(*a)\n    return deco\n@times(4)\ndef one(): return 1",
        "one() == 4",
    ),
    case(
        "a decorator that is a class",
        "class Count:\n    def __init__(self, f): functools.update_wrapper(self, f); self.f, self.n = f, 0\n    def __call__(self, *a): self.n += 1; return self.f(*a)\n@Count\ndef counted(): return 'x'\ncounted()",
        "counted.n == 1 and counted() == 'x' and counted.n == 2 and type(counted) is Count",
    ),
    case(
        "a decorator that registers",
        "HANDLERS = {}\ndef on(name):\n    def deco(f): HANDLERS[name] = f; return f\n    return deco\n@on('a')\ndef handle_a(): return 'A'",
        "HANDLERS['a'] is handle_a and handle_a() == 'A'",
    ),
    case(
        "a partial",
        "part = functools.partial(int, base=2); part.note = 'n'",
        "part('101') == 5 and part.note == 'n' and part.func is int",
    ),
    case(
        "a partial of a function of a cell",
        "def addmul(a, b, c=1): return (a + b) * c\npart2 = functools.partial(addmul, 1, c=3)",
        "part2(2) == 9 and part2.func is addmul",
    ),
    case(
        "a partial method",
        "class PM:\n    def set(self, v): self.v = v\n    on = functools.partialmethod(set, True)\npm = PM(); pm.on()",
        "pm.v is True and pm.on() is None",
    ),
    case(
        "lru_cache",
        "calls_lru = []\n@functools.lru_cache(maxsize=7)\ndef slow(x): calls_lru.append(x); return x + 1\nslow(1)",
        [
            "slow(1) == 2 and slow.cache_parameters() == {'maxsize': 7, 'typed': False}",
            "slow.__name__ == 'slow' and slow.__wrapped__(4) == 5",
        ],
    ),
    case(
        "lru_cache keeps attributes",
        "@functools.lru_cache\ndef attr_cached(): return 1\nattr_cached.note = 'mine'",
        "attr_cached.note == 'mine'",
    ),
    case(
        "lru_cache in a recursion",
        "@functools.cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(20)",
        "fib(50) == 12586269025 and fib.__wrapped__.__globals__ is globals()",
    ),
    case(
        "singledispatch",
        "@functools.singledispatch\ndef show(x): return 'any'\n@show.register\ndef _show_int(x: int): return 'int'\n@show.register(list)\ndef _show_list(x): return 'list'",
        "(show(1), show([]), show('a')) == ('int', 'list', 'any') and show.dispatch(int) is _show_int",
    ),
    case(
        "singledispatch over a class of a cell",
        "class Disp: pass\n@functools.singledispatch\ndef disp(x): return 'any'\n@disp.register\ndef _disp(x: Disp): return 'Disp'",
        "disp(Disp()) == 'Disp'",
    ),
    case(
        "an async function",
        "async def fetch(x): await asyncio.sleep(0); return x + 1",
        "import asyncio as _a, threading as _t\nout = []\nt = _t.Thread(target=lambda: out.append(_a.run(fetch(1)))); t.start(); t.join()\nout == [2] and _a.iscoroutinefunction(fetch)",
    ),
    case(
        "an async generator function",
        "async def ticks():\n    for i in range(2): yield i",
        "import inspect as _i\n_i.isasyncgenfunction(ticks)",
    ),
    case("a generator function", "def gen_f(n):\n    for i in range(n): yield i", "list(gen_f(3)) == [0, 1, 2]"),
    case(
        "a generator that is running is named",
        "def gen_g(): yield 1\nrunning_gen = gen_g()",
        "list(gen_g()) == [1]",
        named="running_gen: generator",
    ),
    case("a coroutine is named", "async def never(): ...\ncoro = never()", named="coro: coroutine"),
    case(
        "a context manager made of a generator",
        "@contextlib.contextmanager\ndef managed():\n    yield 'in'",
        "with managed() as got: pass\ngot == 'in'",
    ),
    case("an open context manager is named", "open_cm = managed()", named="open_cm: generator"),
    case(
        "a nullcontext and an ExitStack",
        "nullc = contextlib.nullcontext(3); estack = contextlib.ExitStack()",
        "with nullc as got: pass\ngot == 3",
    ),
    case(
        "nonlocal state",
        "def acc():\n    total = 0\n    def add(x):\n        nonlocal total; total += x; return total\n    return add\nadd = acc(); add(5)",
        "add(2) == 7",
    ),
    case(
        "an empty closure cell",
        "def empty_cell():\n    if False: z = 1\n    def get(): return z\n    return get\nget_empty = empty_cell()",
        "try:\n    get_empty(); raised = False\nexcept NameError:\n    raised = True\nraised",
    ),
    case(
        "a closure over a class of a cell",
        "class Made_: pass\ndef maker():\n    k = Made_\n    return lambda: k()\nmk = maker()",
        "type(mk()) is Made_",
    ),
    case(
        "a closure over a module",
        "def mod_closure():\n    import math\n    return lambda: math.pi\nmod_f = mod_closure()",
        "round(mod_f(), 2) == 3.14",
    ),
    case(
        "global state that a function changes",
        "hits = 0\ndef hit():\n    global hits; hits += 1; return hits\nhit()",
        "hit() == 2 and hits == 2",
    ),
    case(
        "a function that imports inside",
        "def lazy_import():\n    import json; return json.dumps([1])",
        "lazy_import() == '[1]'",
    ),
    case("a function under two names", "def orig_f(): return 1\nalias_f = orig_f", "alias_f is orig_f"),
    case(
        "an old version of a function",
        "def versioned(): return 'old'\nold_version = versioned\ndef versioned(): return 'new'",
        "old_version() == 'old' and versioned() == 'new'",
    ),
    case(
        "a function in a dict",
        "def in_table(): return 't'\nfn_table = {'f': in_table, 'g': len}",
        "fn_table['f'] is in_table and fn_table['g'] is len",
    ),
    case(
        "builtins and their methods",
        "bi = [len, str.upper, [].__len__, int.__add__, dict.fromkeys, print]",
        "bi[0] is len and bi[1]('a') == 'A' and bi[4]('a') == {'a': None} and bi[5] is print",
    ),
    case(
        "operator helpers",
        "ig, ag, mc = operator.itemgetter(1), operator.attrgetter('real'), operator.methodcaller('upper')",
        "ig([1, 2]) == 2 and ag(5) == 5 and mc('a') == 'A'",
    ),
    case(
        "iterators that can be told",
        "li = iter([1, 2, 3]); next(li); ri = iter(range(5)); next(ri)",
        "next(li) == 2 and next(ri) == 1",
    ),
    case("itertools", "ic = itertools.count(5); next(ic)", "next(ic) == 6"),
    case(
        "a zip and an enumerate",
        "zi = zip([1, 2], 'ab'); next(zi); en = enumerate('xy'); next(en)",
        "next(zi) == (2, 'b') and next(en) == (1, 'y')",
    ),
    case("a map with a lambda", "map_iter = map(lambda x: x * 2, [1, 2, 3]); next(map_iter)", "next(map_iter) == 4"),
    case("a code object", "code_obj = compile('1 + 1', '<c>', 'eval')", "eval(code_obj) == 2"),
    case(
        "a function made of a code object",
        "made_f = types.FunctionType(scale.__code__, globals(), 'made_f')",
        "made_f(1) == factor",
    ),
    case(
        "functions of one exec share globals",
        "script_ns = {}\nexec('n = 0\\ndef bump():\\n    global n\\n    n += 1\\ndef look():\\n    return n', script_ns)\nbump, look = script_ns['bump'], script_ns['look']; del script_ns; bump()",
        "bump()\nlook() == 2",
    ),
    case(
        "a function of an exec that reads a later name",
        "late_ns = {}\nexec('def uses_later(): return helper()\\ndef helper(): return 5', late_ns)\nuses_later = late_ns['uses_later']; del late_ns",
        "uses_later() == 5",
    ),
    case(
        "the source of a function",
        "def sourced_f():\n    return 'this very text'",
        "import inspect as _i\n'this very text' in _i.getsource(sourced_f)",
    ),
    case(
        "a traceback through a restored function shows its line",
        "def boom_f():\n    raise ValueError('boom line')",
        "import traceback as _tb\ntry:\n    boom_f()\nexcept ValueError:\n    shown = _tb.format_exc()\n\"raise ValueError('boom line')\" in shown",
    ),
    case(
        "a function of a library under another name",
        "from json import dumps as to_json",
        "import json as _j\nto_json is _j.dumps",
    ),
    case(
        "a wrapped library function",
        "import json\nwrapped_dumps = functools.wraps(json.dumps)(lambda o: json.dumps(o, sort_keys=True))",
        "wrapped_dumps({'b': 1, 'a': 2}) == '{\"a\": 2, \"b\": 1}'",
    ),
    case(
        "a method taken from a class",
        "class HasM:\n    def m(self): return 'm'\nunbound = HasM.m",
        "unbound(HasM()) == 'm' and unbound is HasM.m",
    ),
    case(
        "a classmethod that is bound",
        "class HasC:\n    @classmethod\n    def c(cls): return cls\nbound_c = HasC.c",
        "bound_c() is HasC",
    ),
    case(
        "a property object", "prop = property(lambda self: 1, doc='d')", "prop.fget(None) == 1 and prop.__doc__ == 'd'"
    ),
    case(
        "static and class method objects",
        "smo = staticmethod(lambda: 's'); cmo = classmethod(lambda c: c)",
        "smo.__func__() == 's' and cmo.__func__(int) is int",
    ),
    case(
        "a super object",
        "class SupA:\n    def f(self): return 'A'\nclass SupB(SupA):\n    def f(self): return 'B'\nsup_b = SupB(); sup_o = super(SupB, sup_b)",
        "sup_o.f() == 'A'",
    ),
    case(
        "a mapping proxy",
        "proxied_dict = {'a': 1}; mproxy = types.MappingProxyType(proxied_dict)",
        "proxied_dict['b'] = 2\nmproxy['b'] == 2",
    ),
    case("a cell object", "cell_o = types.CellType(5)", "cell_o.cell_contents == 5"),
    case(
        "a function with many free variables",
        "def many(a, b, c):\n    def f(): return a + b + c\n    return f\nmany_f = many(1, 2, 3)",
        "many_f() == 6 and many_f.__code__.co_freevars == ('a', 'b', 'c')",
    ),
    case(
        "a function whose closure holds itself and an array",
        "import numpy as np\ndef holder():\n    arr = np.arange(3.)\n    def f(): return arr\n    f.me = f\n    return f\nhold_f = holder()",
        "hold_f.me is hold_f",
        "hold_f()",
    ),
    case(
        "an async lock and a queue",
        "alock = asyncio.Lock(); aq = asyncio.Queue(3); aq.put_nowait(1)",
        "aq.qsize() == 1 and aq.get_nowait() == 1 and not alock.locked()",
    ),
    case(
        "a task of the loop is named",
        "async def forever_task(): await asyncio.sleep(1000)\nloop_task = asyncio.ensure_future(forever_task())",
        named="loop_task: a task",
    ),
    case(
        "a dis-assembled function keeps its lines",
        "def lined():\n    a = 1\n    return a",
        "lined.__code__.co_firstlineno == 1 and lined() == 1",
    ),
    case(
        "a function with a type alias",
        "Alias = dict[str, list[int]]\ndef use_alias(x: Alias) -> Alias: return x",
        "use_alias.__annotations__['x'] == dict[str, list[int]]",
    ),
    case(
        "overloads",
        "@typing.overload\ndef over(x: int) -> int: ...\n@typing.overload\ndef over(x: str) -> str: ...\ndef over(x): return x",
        "over(3) == 3",
    ),
    case(
        "a function with a big default",
        "big_default = list(range(1000))\ndef with_big(x=big_default): return x",
        "with_big() is big_default",
    ),
    case(
        "a class-level lambda with default arguments",
        "class CL:\n    f = staticmethod(lambda x, y=2: x + y)\ncl = CL()",
        "cl.f(1) == 3",
    ),
]
