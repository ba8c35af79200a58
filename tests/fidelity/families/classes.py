"""Classes that cells define, and their instances."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Classes of cells"
EXAMPLES = "dataclasses, enums, metaclasses, slots, generics, and instances of them"
PRELUDE = "import abc, collections, dataclasses, enum, functools, typing"
CASES = [
    case(
        "a class and an instance",
        "class Plain:\n    def __init__(self): self.x = 1\n    def double(self): return self.x * 2\nplain = Plain()",
        ["isinstance(plain, Plain)", "plain.double() == 2", "Plain().x == 1"],
    ),
    case(
        "an instance whose class lost its name",
        "class Deleted:\n    def f(self): return 5\ndeleted = Deleted(); del Deleted",
        "deleted.f() == 5 and type(deleted).__name__ == 'Deleted'",
    ),
    case(
        "a redefined class and an old instance",
        "class Twice_:\n    v = 1\nold_twice = Twice_()\nclass Twice_:\n    v = 2\nnew_twice = Twice_()",
        ["old_twice.v == 1 and new_twice.v == 2", "type(new_twice) is Twice_ and type(old_twice) is not Twice_"],
    ),
    case(
        "inheritance and super()",
        "class Animal:\n    def say(self): return 'a'\nclass Dog(Animal):\n    def say(self): return 'd' + super().say()\ndog = Dog()",
        ["dog.say() == 'da'", "Dog.__bases__ == (Animal,)", "Animal.__subclasses__() == [Dog]"],
    ),
    case(
        "multiple inheritance",
        "class MA:\n    def f(self): return ['A']\nclass MB(MA):\n    def f(self): return ['B'] + super().f()\nclass MC(MA):\n    def f(self): return ['C'] + super().f()\nclass MD(MB, MC): pass\nmd_ = MD()",
        "md_.f() == ['B', 'C', 'A'] and MD.__mro__ == (MD, MB, MC, MA, object)",
    ),
    case(
        "slots",
        "class Slotted:\n    __slots__ = ('a', 'b')\nslotted = Slotted(); slotted.a = 5",
        [
            "slotted.a == 5 and not hasattr(slotted, 'b') and not hasattr(slotted, '__dict__')",
            "slotted.b = 1\nslotted.b == 1",
        ],
    ),
    case(
        "slots in a subclass",
        "class SBase:\n    __slots__ = ('a',)\nclass SSub(SBase):\n    __slots__ = ('b',)\nssub = SSub(); ssub.a, ssub.b = 1, 2",
        "(ssub.a, ssub.b) == (1, 2) and not hasattr(ssub, '__dict__')",
    ),
    case(
        "slots with a dict and weakrefs",
        "class SW:\n    __slots__ = ('a', '__dict__', '__weakref__')\nsw = SW(); sw.a = 1; sw.z = 2",
        "import weakref as _w\n(sw.a, sw.z) == (1, 2) and _w.ref(sw)() is sw",
    ),
    case(
        "private slots",
        "class PS:\n    __slots__ = ('__hidden',)\n    def __init__(self): self.__hidden = 4\n    def get(self): return self.__hidden\nps = PS()",
        "ps.get() == 4",
    ),
    case(
        "a dataclass",
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: int = 2\npoint = Point(1)",
        [
            "point == Point(1, 2)",
            "dataclasses.replace(point, x=9).x == 9",
            "[f.name for f in dataclasses.fields(Point)] == ['x', 'y']",
        ],
    ),
    case(
        "a frozen dataclass as a key",
        "@dataclasses.dataclass(frozen=True)\nclass Frozen_:\n    x: int\nby_frozen = {Frozen_(1): 'one'}",
        "by_frozen[Frozen_(1)] == 'one'",
    ),
    case(
        "a dataclass with slots",
        "@dataclasses.dataclass(slots=True)\nclass SlotPoint:\n    x: int\n    y: int = 2\nslot_point = SlotPoint(1)",
        ["slot_point == SlotPoint(1, 2)", "not hasattr(slot_point, '__dict__')"],
    ),
    case(
        "a frozen dataclass with slots",
        "@dataclasses.dataclass(frozen=True, slots=True)\nclass FSP:\n    x: int = 3\nfsp = FSP()",
        "fsp == FSP(3) and hash(fsp) == hash(FSP(3))",
    ),
    case(
        "a dataclass with default_factory and post_init",
        "@dataclasses.dataclass\nclass Cfg:\n    tags: list = dataclasses.field(default_factory=list)\n    n: int = dataclasses.field(init=False)\n    def __post_init__(self): self.n = len(self.tags)\ncfg = Cfg(['a'])",
        "cfg.n == 1 and Cfg().tags == []",
    ),
    case(
        "dataclasses that inherit",
        "@dataclasses.dataclass\nclass DBase:\n    a: int = 1\n@dataclasses.dataclass\nclass DSub(DBase):\n    b: int = 2\ndsub = DSub()",
        "dsub == DSub(1, 2) and isinstance(dsub, DBase)",
    ),
    case(
        "a dataclass with KW_ONLY and ClassVar",
        "@dataclasses.dataclass\nclass KW:\n    k: typing.ClassVar[int] = 7\n    _: dataclasses.KW_ONLY\n    a: int = 1\nkw = KW(a=3)",
        "kw.a == 3 and KW.k == 7 and [f.name for f in dataclasses.fields(kw)] == ['a']",
    ),
    case(
        "a dataclass that can be subclassed afterwards",
        "@dataclasses.dataclass\nclass DParent:\n    x: int",
        "@dataclasses.dataclass\nclass DLater(DParent):\n    w: int = 5\nDLater(1).w == 5",
    ),
    case(
        "an Enum",
        "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2\nred = Color.RED",
        [
            "red is Color.RED and Color(1) is red",
            "list(Color) == [Color.RED, Color.BLUE]",
            "repr(red) == '<Color.RED: 1>'",
        ],
    ),
    case(
        "an Enum member as a key", "class Mode(enum.Enum):\n    A = 'a'\nby_mode = {Mode.A: 1}", "by_mode[Mode.A] == 1"
    ),
    case("an IntEnum", "class Level(enum.IntEnum):\n    LOW = 1\nlow = Level.LOW", "low is Level.LOW and low + 1 == 2"),
    case("a StrEnum-like", "class Kind(str, enum.Enum):\n    X = 'x'\nkx = Kind.X", "kx is Kind.X and kx == 'x'"),
    case(
        "a Flag",
        "class Perm(enum.Flag):\n    R = enum.auto()\n    W = enum.auto()\nrw = Perm.R | Perm.W",
        ["rw == Perm.R | Perm.W and Perm.R in rw", "(rw & Perm.R) is Perm.R"],
    ),
    case(
        "an IntFlag",
        "class IPerm(enum.IntFlag):\n    R = 4\n    W = 2\nirw = IPerm.R | IPerm.W",
        "irw == 6 and IPerm.R in irw",
    ),
    case(
        "an Enum with methods and values of its own",
        "class Planet(enum.Enum):\n    EARTH = (1, 2)\n    def __init__(self, m, r): self.m = m\n    def weight(self): return self.m * 2\nearth = Planet.EARTH",
        "earth.weight() == 2 and earth is Planet.EARTH",
    ),
    case(
        "an Enum with aliases",
        "class Ali(enum.Enum):\n    A = 1\n    B = 1\nab = Ali.B",
        "Ali.A is Ali.B is ab and list(Ali.__members__) == ['A', 'B']",
    ),
    case("an Enum made by a call", "Dyn = enum.Enum('Dyn', 'X Y'); dx = Dyn.X", "dx is Dyn.X"),
    case(
        "an Enum without its class's name",
        "class GoneE(enum.Enum):\n    A = 1\ngone_a = GoneE.A; gone_b = [GoneE.A]; del GoneE",
        "gone_b[0] is gone_a",
    ),
    case(
        "a namedtuple",
        "Pt = collections.namedtuple('Pt', 'x y', defaults=[3]); pt = Pt(1)",
        "pt == Pt(1, 3) and type(pt) is Pt and pt._replace(x=5).x == 5",
    ),
    case(
        "a typing.NamedTuple",
        "class NT(typing.NamedTuple):\n    a: int\n    b: str = 'x'\n    def both(self): return (self.b, self.a)\nnt = NT(1)",
        "nt.both() == ('x', 1) and type(nt) is NT and NT.__annotations__",
    ),
    case(
        "a TypedDict",
        "class TD(typing.TypedDict, total=False):\n    a: int\ntd: TD = {'a': 1}",
        "TD.__optional_keys__ == frozenset({'a'}) and TD.__annotations__ == {'a': int}",
    ),
    case(
        "a Protocol",
        "@typing.runtime_checkable\nclass Quacks(typing.Protocol):\n    def quack(self) -> str: ...\nclass Duck:\n    def quack(self): return 'q'\nduck = Duck()",
        ["isinstance(duck, Quacks)", "not isinstance(5, Quacks)", "Quacks._is_protocol"],
    ),
    case(
        "a generic class",
        "T = typing.TypeVar('T')\nclass Box(typing.Generic[T]):\n    def __init__(self, v: T): self.v = v\n    def get(self) -> T: return self.v\nbox = Box[int](5)",
        [
            "type(box) is Box and box.get() == 5",
            "Box.__parameters__ == (T,)",
            "typing.get_type_hints(Box.get)['return'] is T",
            "Box[int].__origin__ is Box",
        ],
    ),
    case(
        "a generic alias by name",
        "U = typing.TypeVar('U')\nclass GBox(typing.Generic[U]): pass\nIntBox = GBox[int]; intbox = IntBox()",
        "IntBox.__origin__ is GBox and intbox.__orig_class__ == IntBox",
    ),
    case(
        "TypeVar with a bound of a cell",
        "class Bound: pass\nVB = typing.TypeVar('VB', bound=Bound)\ndef ident(x: VB) -> VB: return x",
        ["VB.__bound__ is Bound", "ident.__annotations__['x'] is VB"],
    ),
    case(
        "one TypeVar in many annotations",
        "V = typing.TypeVar('V')\ndef first_of(x: list[V]) -> V: return x[0]\ndef last_of(x: list[V]) -> V: return x[-1]",
        [
            "first_of.__annotations__['return'] is V is last_of.__annotations__['return']",
            "first_of.__annotations__['x'] == list[V]",
        ],
    ),
    case(
        "a metaclass",
        "class Meta(type):\n    made = []\n    def __new__(m, n, b, d):\n        cls = super().__new__(m, n, b, d); m.made.append(cls); return cls\n    def hello(cls): return cls.__name__\nclass Made(metaclass=Meta): pass\nmade = Made()",
        ["Meta.made == [Made]", "type(Made) is Meta and Made.hello() == 'Made'"],
    ),
    case(
        "a metaclass with __call__ (singleton)",
        "class Single(type):\n    _one = {}\n    def __call__(cls, *a):\n        if cls not in cls._one: cls._one[cls] = super().__call__(*a)\n        return cls._one[cls]\nclass Db(metaclass=Single):\n    def __init__(self): self.n = 1\ndb = Db()",
        ["Db() is db", "list(Single._one) == [Db]"],
    ),
    case(
        "a metaclass with __prepare__ and keywords",
        "class Ord(type):\n    @classmethod\n    def __prepare__(m, n, b, **k): return {}\n    def __new__(m, n, b, d, tag=None):\n        cls = super().__new__(m, n, b, d); cls.tag = tag; return cls\n    def __init__(cls, n, b, d, tag=None): super().__init__(n, b, d)\nclass Ordered(metaclass=Ord, tag='t'): pass\nordered = Ordered()",
        "Ordered.tag == 't' and type(ordered) is Ordered and type(Ordered) is Ord",
    ),
    case(
        "__init_subclass__ that registers in a global",
        "PLUGINS = {}\nclass Plugin:\n    def __init_subclass__(cls, **k): PLUGINS[cls.__name__] = cls\nclass Csv(Plugin): pass\nclass Tsv(Plugin): pass",
        ["PLUGINS == {'Csv': Csv, 'Tsv': Tsv}", "list(PLUGINS.values())[0] is Csv"],
    ),
    case(
        "__init_subclass__ that counts",
        "class Counted:\n    n = 0\n    def __init_subclass__(cls, **k): Counted.n += 1\nclass C1(Counted): pass\nclass C2(Counted): pass",
        "Counted.n == 2",
    ),
    case(
        "__init_subclass__ that appends to a list",
        "LOADED = []\nclass Loads:\n    def __init_subclass__(cls, **k): LOADED.append(cls)\nclass L1(Loads): pass",
        "LOADED == [L1]",
    ),
    case(
        "__init_subclass__ with a keyword",
        "class NeedsTag:\n    def __init_subclass__(cls, *, tag, **k): cls.tag = tag\nclass Tagged_(NeedsTag, tag='x'): pass\ntagged_ = Tagged_()",
        "tagged_.tag == 'x' and issubclass(Tagged_, NeedsTag)",
    ),
    case(
        "__set_name__ of a descriptor",
        "NAMED_BY = []\nclass Field:\n    def __set_name__(self, owner, name): self.name = name; NAMED_BY.append(name)\n    def __get__(self, obj, owner=None): return self if obj is None else obj.__dict__.get(self.name, 0)\n    def __set__(self, obj, v): obj.__dict__[self.name] = v\nclass HasField: f = Field()\nhas_field = HasField(); has_field.f = 4",
        ["has_field.f == 4 and HasField.f.name == 'f'", "NAMED_BY == ['f']"],
    ),
    case(
        "a class decorator that registers",
        "MODELS = {}\ndef register(cls): MODELS[cls.__name__] = cls; return cls\n@register\nclass Resnet: pass\nresnet = MODELS['Resnet']()",
        ["MODELS['Resnet'] is Resnet", "type(resnet) is Resnet"],
    ),
    case(
        "an abstract base class",
        "class Shape(abc.ABC):\n    @abc.abstractmethod\n    def area(self): ...\nclass Sq(Shape):\n    def area(self): return 4\nsq = Sq()",
        [
            "isinstance(sq, Shape) and sq.area() == 4",
            "try:\n    Shape(); raised = False\nexcept TypeError:\n    raised = True\nraised",
        ],
    ),
    case(
        "a virtual subclass",
        "class Iface(abc.ABC): pass\n@Iface.register\nclass Virt: pass\nvirt = Virt()",
        "isinstance(virt, Iface)",
    ),
    case(
        "a virtual subclass of a library's ABC",
        "import collections.abc\nclass MySeq:\n    def __len__(self): return 0\ncollections.abc.Sequence.register(MySeq)\nmy_seq = MySeq()",
        "isinstance(my_seq, collections.abc.Sequence)",
        known="the registration lives in the library's class, which is no variable: run the cell again",
    ),
    case(
        "properties, class methods, static methods",
        "class Meths:\n    n = 3\n    @property\n    def p(self): return self.n\n    @classmethod\n    def c(cls): return cls\n    @staticmethod\n    def s(): return 's'\nmeths = Meths()",
        "meths.p == 3 and meths.c() is Meths and Meths.s() == 's'",
    ),
    case(
        "a cached property",
        "class Cached:\n    calls = 0\n    @functools.cached_property\n    def v(self): type(self).calls += 1; return 7\ncached = Cached(); cached.v",
        ["cached.v == 7 and Cached.calls == 1", "Cached().v == 7"],
    ),
    case(
        "a method with a cache",
        "class LM:\n    @functools.lru_cache\n    def f(self, x): return x + 1\nlm = LM(); lm.f(1)",
        "lm.f(2) == 3",
    ),
    case(
        "a singledispatch method",
        "class SD:\n    @functools.singledispatchmethod\n    def f(self, x): return 'any'\n    @f.register\n    def _(self, x: int): return 'int'\nsd = SD()",
        "sd.f(1) == 'int' and sd.f('a') == 'any'",
    ),
    case(
        "total ordering",
        "@functools.total_ordering\nclass Ver:\n    def __init__(self, n): self.n = n\n    def __eq__(self, o): return self.n == o.n\n    def __lt__(self, o): return self.n < o.n\nver = Ver(1)",
        "ver <= Ver(2) and ver > Ver(0)",
    ),
    case(
        "operators and containers",
        "class Vec:\n    def __init__(self, *v): self.v = v\n    def __add__(self, o): return Vec(*(a + b for a, b in zip(self.v, o.v)))\n    def __getitem__(self, i): return self.v[i]\n    def __len__(self): return len(self.v)\n    def __eq__(self, o): return self.v == o.v\nvec = Vec(1, 2)",
        "vec + Vec(1, 1) == Vec(2, 3) and list(vec) == [1, 2]",
    ),
    case(
        "a callable instance", "class Calls:\n    def __call__(self, x): return x * 3\ncalls = Calls()", "calls(2) == 6"
    ),
    case(
        "a context manager",
        "class Ctx:\n    def __enter__(self): return 'in'\n    def __exit__(self, *a): return True\nctx = Ctx()",
        "with ctx as got: pass\ngot == 'in'",
    ),
    case(
        "a subclass of dict",
        "class AttrDict(dict):\n    def __getattr__(self, name):\n        try: return self[name]\n        except KeyError: raise AttributeError(name) from None\n    __setattr__ = dict.__setitem__\nad = AttrDict(a=1); ad.b = 2",
        "type(ad) is AttrDict and ad.a == 1 and ad.b == 2 and dict(ad) == {'a': 1, 'b': 2}",
    ),
    case(
        "a subclass of list",
        "class Stack(list):\n    def push(self, x): self.append(x)\nstack = Stack([1]); stack.name = 's'",
        "type(stack) is Stack and stack == [1] and stack.name == 's'",
    ),
    case(
        "a subclass of str, int, float, tuple",
        "class S(str): pass\nclass I(int): pass\nclass F(float): pass\nclass Tu(tuple): pass\ns_, i_, f_, tu_ = S('a'), I(5), F(1.5), Tu((1,)); s_.note = 'n'",
        "(type(s_), type(i_), type(f_), type(tu_)) == (S, I, F, Tu) and s_ == 'a' and s_.note == 'n' and i_ == 5",
    ),
    case(
        "an exception of a cell",
        "class MyError(Exception):\n    def __init__(self, a, b): super().__init__(a); self.b = b\nerror = MyError(1, 2)",
        ["type(error) is MyError and error.args == (1,) and error.b == 2", "issubclass(MyError, Exception)"],
    ),
    case(
        "an exception with a cause and notes",
        "try:\n    try: 1 / 0\n    except ZeroDivisionError as inner_e: raise ValueError('outer') from inner_e\nexcept ValueError as outer_e: caught_error = outer_e",
        "isinstance(caught_error.__cause__, ZeroDivisionError) and str(caught_error) == 'outer'",
    ),
    case(
        "an exception group",
        "import sys\ngrouped = ExceptionGroup('g', [ValueError(1), KeyError('k')]) if sys.version_info >= (3, 11) else None",
        "grouped is None or [type(e) for e in grouped.exceptions] == [ValueError, KeyError]",
    ),
    case(
        "a class inside a function",
        "def make_class(n):\n    class Inner:\n        size = n\n        def get(self): return n\n    return Inner\nInner5 = make_class(5); Inner6 = make_class(6); inner5 = Inner5()",
        ["inner5.get() == 5 and Inner6.size == 6", "type(inner5) is Inner5 and Inner5 is not Inner6"],
    ),
    case(
        "a class inside a class",
        "class Outer:\n    class Nested:\n        v = 1\n    class E(enum.Enum):\n        A = 1\nnested = Outer.Nested(); outer_a = Outer.E.A",
        "type(nested) is Outer.Nested and outer_a is Outer.E.A",
    ),
    case(
        "classes that refer to each other",
        "class Left:\n    def other(self): return Right()\nclass Right:\n    def other(self): return Left()\nLeft.peer, Right.peer = Right, Left",
        "Left.peer is Right and Right.peer is Left and type(Left().other()) is Right",
    ),
    case(
        "a class that holds an instance of itself",
        "class Sing: pass\nSing.instance = Sing(); sing = Sing.instance",
        "Sing.instance is sing and type(sing) is Sing",
    ),
    case(
        "a class that holds a big array",
        "import numpy as np\nclass HasArray: table = np.arange(20_000.)\nhas_array = HasArray()",
        "has_array.table is HasArray.table",
        "HasArray.table",
    ),
    case(
        "a class attribute that was set later",
        "class Late: pass\nLate.added = lambda self: 'later'; late = Late()",
        "late.added() == 'later'",
    ),
    case(
        "a monkeypatched class of a library",
        "import collections\ncollections.UserDict.extra_method = lambda self: 'extra'",
        "hasattr(collections.UserDict, 'extra_method')",
        known="a patch to a library's class is no variable: run the cell again",
    ),
    case(
        "a class with __getstate__",
        "class GS:\n    def __init__(self): self.keep, self.drop = 1, lambda: 2\n    def __getstate__(self): return {'keep': self.keep}\ngs_ = GS()",
        "gs_.keep == 1",
    ),
    case(
        "a class with __reduce__",
        "class RD:\n    def __init__(self, n): self.n = n\n    def __reduce__(self): return (RD, (self.n,))\nrd = RD(3)",
        "type(rd) is RD and rd.n == 3",
    ),
    case(
        "a class with __getnewargs_ex__",
        "class GN:\n    def __new__(cls, *, n): self = super().__new__(cls); self.n = n; return self\n    def __getnewargs_ex__(self): return (), {'n': self.n}\ngn = GN(n=4)",
        "gn.n == 4 and type(gn) is GN",
    ),
    case(
        "a class with __class_getitem__",
        "class CG:\n    def __class_getitem__(cls, k): return (cls, k)",
        "CG[1] == (CG, 1)",
    ),
    case(
        "annotations and doc",
        "class Doc:\n    '''Says it.'''\n    x: int = 1\n    y: 'Doc'",
        "Doc.__doc__ == 'Says it.' and Doc.__annotations__ == {'x': int, 'y': 'Doc'} and Doc.__module__ == '__main__' and Doc.__qualname__ == 'Doc'",
    ),
    case(
        "the source of a class",
        "class Sourced:\n    def f(self):\n        return 'source here'\nsourced = Sourced()",
        "import inspect as _i\n'source here' in _i.getsource(Sourced.f)",
    ),
    case(
        "redefining a class after a restore",
        "class Redef:\n    v = 1\nredef = Redef()",
        "class Redef:\n    v = 2\nredef_new = Redef()\n(redef.v, redef_new.v) == (1, 2) and not isinstance(redef, Redef)",
    ),
    case(
        "types.SimpleNamespace and type()",
        "import types\nsns = types.SimpleNamespace(a=1); ByType = type('ByType', (), {'x': 3}); by_type = ByType()",
        "sns.a == 1 and type(by_type) is ByType and by_type.x == 3",
    ),
    case(
        "a union and generic types",
        "Uni = int | str; Opt = typing.Optional[int]; Call = typing.Callable[[int], str]; Lit = typing.Literal['a', 1]; Ann = typing.Annotated[int, 'm']",
        "Uni == int | str and Opt == typing.Optional[int] and Call == typing.Callable[[int], str] and Lit == typing.Literal['a', 1] and Ann.__metadata__ == ('m',)",
    ),
    case(
        "a generic alias over a class of a cell",
        "class Elem: pass\nElems = list[Elem]; MaybeElem = typing.Optional[Elem]",
        "Elems.__args__[0] is Elem and MaybeElem.__args__[0] is Elem",
    ),
    case(
        "NewType, ParamSpec",
        "Uid = typing.NewType('Uid', int); PSpec = typing.ParamSpec('PSpec')\ndef deco(f: typing.Callable[PSpec, int]): return f",
        "Uid(5) == 5 and deco.__annotations__['f'].__args__[0] is PSpec",
    ),
    case(
        "a class with a closure over a named list",
        "cls_log = []\ndef logged_class(log):\n    class L_:\n        def hit(self): log.append(1)\n    return L_\nLc = logged_class(cls_log); lc = Lc()",
        "lc.hit()\ncls_log[-1] == 1",
    ),
    case(
        "a hash that needs a global",
        "import zlib\nclass HKey:\n    def __init__(self, x): self.x = x\n    def __hash__(self): return zlib.crc32(self.x)\n    def __eq__(self, o): return self.x == o.x\nhtable = {HKey(b'a'): 1}",
        "htable[HKey(b'a')] == 1",
    ),
    case(
        "a weak registry of instances",
        "import weakref\nclass Tracked:\n    alive = weakref.WeakSet()\n    def __init__(self): Tracked.alive.add(self)\ntracked = Tracked()",
        "tracked in Tracked.alive",
    ),
    case(
        "a ctypes structure",
        "import ctypes\nclass CPoint(ctypes.Structure):\n    _fields_ = [('x', ctypes.c_int), ('y', ctypes.c_int)]\ncpoint = CPoint(1, 2)",
        "(cpoint.x, cpoint.y) == (1, 2) and type(cpoint) is CPoint",
        known="refused and named: the classes of ctypes describe memory to C and have no parts that pickle",
    ),
    case(
        "an Enum over bytes with a __new__ of its own",
        "class Coord(bytes, enum.Enum):\n    def __new__(cls, value, label):\n        self = bytes.__new__(cls, [value]); self._value_ = value; self.label = label; return self\n    PX = (0, 'P.X')\ncoord_px = Coord.PX",
        "coord_px is Coord.PX and coord_px.label == 'P.X' and bytes(coord_px) == b'\\x00'",
        known="named: its members are made by its own __new__, which decoding does not call",
    ),
    case(
        "a class whose base's hook looks for a global",
        "NEEDED_LATER = ['x']\nclass Looks:\n    def __init_subclass__(cls): cls.seen = NEEDED_LATER\nclass Looked(Looks): pass",
        "Looked.seen is NEEDED_LATER",
    ),
]
