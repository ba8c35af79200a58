"""Values of Python itself and its standard library."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "Python and its standard library"
EXAMPLES = "dates, decimals, paths, queues, exceptions, loggers"
PRELUDE = "import collections, datetime, decimal, fractions, io, pathlib, random, re, struct, sys, threading, uuid, array, logging, queue"

_VALUES = {
    "numbers": "[0, -1, 10 ** 50, 1.5, -0.0, float('inf'), 1 + 2j, True]",
    "NaN with a payload": "struct.unpack('<d', bytes.fromhex('010000000000f87f'))[0]",
    "text": "['', 'a', '\\u00e9\\U0001f600', '\\ud800', 'x' * 1000]",
    "bytes": "[b'', b'abc', bytes(100_000), bytearray(b'xy')]",
    "a big bytearray": "bytearray(range(256)) * 400",
    "nothing": "[None, ..., NotImplemented]",
    "containers": "{'l': [1, [2]], 't': (1, (2,)), 's': {1, 2}, 'f': frozenset({3}), 'd': {1: {2: 3}}}",
    "the order of a dict": "{'z': 1, 'a': 2, 'm': 3}",
    "a range and a slice": "[range(1, 9, 2), slice(1, None, 3)]",
    "an OrderedDict": "collections.OrderedDict([('b', 1), ('a', 2)])",
    "a Counter": "collections.Counter('abca')",
    "a deque with a bound": "collections.deque([1, 2, 3], maxlen=3)",
    "dates": "[datetime.date(2026, 11, 21), datetime.datetime(2026, 11, 21, 8, tzinfo=datetime.timezone.utc), datetime.timedelta(1, 2, 3), datetime.time(1, fold=1)]",
    "decimals and fractions": "[decimal.Decimal('1.10'), fractions.Fraction(1, 3)]",
    "paths": "[pathlib.Path('a/b'), pathlib.PurePosixPath('/x')]",
    "a uuid": "uuid.UUID(int=5)",
    "an array": "array.array('d', [1.0, 2.0])",
    "a big int": "2 ** 10_000",
    "JSON-like of depth": "{'a': [{'b': [{'c': [1, 2, {'d': None}]}]}]}",
    "a list of 20 000 dicts": "[{'i': i, 'x': i * 0.5} for i in range(20_000)]",
    "struct_time": "__import__('time').gmtime(0)",
}

_CTYPES = "refused or named: the classes of ctypes describe memory to C and have no parts that pickle"
CASES = [
    *(case(name, f"value_{i} = {made}", same=f"value_{i}") for i, (name, made) in enumerate(_VALUES.items())),
    case(
        "a defaultdict with a lambda",
        "dd = collections.defaultdict(lambda: [0]); dd['a'].append(1)",
        "dd['new'] == [0] and dd['a'] == [0, 1]",
    ),
    case(
        "a defaultdict of defaultdicts",
        "ddd = collections.defaultdict(lambda: collections.defaultdict(int)); ddd['a']['b'] += 1",
        "ddd['a']['b'] == 1 and ddd['x']['y'] == 0",
    ),
    case(
        "a compiled pattern", "pat = re.compile(r'(\\d+)', re.I)", "pat.search('a12')[1] == '12' and pat.flags & re.I"
    ),
    case("a match", "rmatch = re.match(r'(\\w)(\\w)', 'ab')", named="rmatch: Match"),
    case("a random stream", "rnd = random.Random(4); rnd.random()", same="[rnd.random() for _ in range(3)]"),
    case(
        "the stream behind random.random",
        "inst_random = random.random",
        "random.seed(1); a = inst_random(); random.seed(1)\na == random.random()",
    ),
    case(
        "StringIO and BytesIO",
        "sio = io.StringIO('abc'); sio.read(1); bio = io.BytesIO(b'xyz'); bio.seek(2)",
        "sio.read() == 'bc' and bio.read() == b'z'",
    ),
    case("a logger", "log = logging.getLogger('fidelity.test')", "log is logging.getLogger('fidelity.test')"),
    case(
        "a log handler that writes to a file is named",
        "import tempfile\nlog_dir = tempfile.mkdtemp(); fhandler = logging.FileHandler(log_dir + '/x.log')",
        named="fhandler: an open file",
    ),
    case(
        "locks come back open",
        "lock = threading.Lock(); rlock = threading.RLock()",
        "lock.acquire(blocking=False) and rlock.acquire(blocking=False)",
    ),
    case(
        "conditions, events, semaphores",
        "ev = threading.Event(); ev.set(); sem = threading.Semaphore(3); cond = threading.Condition()",
        "ev.is_set() and sem.acquire(blocking=False)\nwith cond: pass\nTrue",
    ),
    case("a queue", "q = queue.Queue(); q.put(1); q.put('b')", "q.get_nowait() == 1 and q.get_nowait() == 'b'"),
    case("a SimpleQueue is named", "sq_ = queue.SimpleQueue()", named="sq_: SimpleQueue"),
    case("thread-local data is named", "tl = threading.local(); tl.x = 1", named="tl: local"),
    case(
        "an open file is named, what it read is kept",
        "file_dir = __import__('tempfile').mkdtemp(); opened = open(file_dir + '/f.txt', 'w+'); opened.write('abc'); opened.flush(); text_of = 'abc'",
        ["text_of == 'abc'", "open(file_dir + '/f.txt').read() == 'abc'"],
        named="opened: an open file",
    ),
    case("a csv writer is named", "import csv\ncsvw = csv.writer(io.StringIO())", named="csvw: writer"),
    case(
        "a database connection is named",
        "import sqlite3\nconn = sqlite3.connect(':memory:'); rows_read = conn.execute('select 1').fetchall()",
        "rows_read == [(1,)]",
        named="conn: Connection",
    ),
    case("a socket is named", "import socket\nsock = socket.socket(); ", named="sock: socket"),
    case(
        "a process that has ended",
        "import subprocess\nproc = subprocess.Popen(['true']); proc.wait()",
        "proc.returncode == 0 and proc.poll() == 0",
    ),
    case(
        "a finished process's result",
        "done = subprocess.run(['echo', 'hi'], capture_output=True, text=True)",
        "done.stdout == 'hi\\n' and done.returncode == 0",
    ),
    case("a thread is named", "thr = threading.Thread(target=print)", named="thr: a thread"),
    case(
        "a pool is named",
        "from concurrent.futures import ThreadPoolExecutor\npool_ex = ThreadPoolExecutor(1)",
        named="pool_ex: ",
    ),
    case("a future that is done", "fut = pool_ex.submit(int); fut.result()", "fut.done() and fut.result() == 0"),
    case("an iterator of a file's lines is named", "lines_it = map(str.strip, opened)", named="lines_it: an open file"),
    case("a context variable", "import contextvars\ncvar = contextvars.ContextVar('cvar')", named="cvar: ContextVar"),
    case("an IP address", "import ipaddress\nip = ipaddress.ip_address('10.0.0.1')", "str(ip) == '10.0.0.1'"),
    case(
        "a time zone of its own",
        "import zoneinfo\nzone = zoneinfo.ZoneInfo('Europe/Berlin'); zoned = datetime.datetime(2026, 7, 1, tzinfo=zone)",
        "zoned.utcoffset() == datetime.timedelta(hours=2) and zoned.tzinfo is zone",
    ),
    case(
        "argparse's namespace and parser",
        "import argparse\nargs = argparse.Namespace(lr=0.1); parser = argparse.ArgumentParser(); parser.add_argument('--n', type=int, default=3)",
        "args.lr == 0.1 and parser.parse_args(['--n', '5']).n == 5",
    ),
    case(
        "a config parser",
        "import configparser\ncp_ = configparser.ConfigParser(); cp_.read_string('[a]\\nb = 1')",
        "cp_['a']['b'] == '1'",
    ),
    case(
        "a temporary directory stays, and stays after a restore",
        "import tempfile\ntmp_dir = tempfile.TemporaryDirectory()",
        "__import__('os').path.isdir(tmp_dir.name)",
    ),
    case(
        "an XML tree",
        "import xml.etree.ElementTree as ET\nxml = ET.fromstring('<a><b x=\"1\"/></a>')",
        "xml.find('b').get('x') == '1'",
    ),
    case("a heap and a bisect list", "import heapq\nheap = [3, 1, 2]; heapq.heapify(heap)", "heapq.heappop(heap) == 1"),
    case("an ast", "import ast\ntree = ast.parse('x = 1')", "ast.unparse(tree) == 'x = 1'"),
    case(
        "a signature", "import inspect\nsignature = inspect.signature(lambda a, b=2: 0)", "str(signature) == '(a, b=2)'"
    ),
    case("a hash object is named", "import hashlib\nhasher = hashlib.sha256(b'a')", named="hasher: HASH"),
    case(
        "a string template and a translation",
        "import string\ntmpl = string.Template('$a'); trans = str.maketrans('a', 'b')",
        "tmpl.substitute(a=1) == '1' and 'aa'.translate(trans) == 'bb'",
    ),
    case(
        "a traceback is named, its exception is kept",
        "try: 1 / 0\nexcept ZeroDivisionError as z: zde = z; ztb = z.__traceback__",
        "type(zde) is ZeroDivisionError and str(zde) == 'division by zero'",
        named="ztb: a traceback",
    ),
    case("a frame is named", "frame = sys._getframe()", named="frame: a running frame"),
    case(
        "a zip file in memory",
        "import zipfile\nzf = zipfile.ZipFile(io.BytesIO(), 'w'); zf.writestr('a', 'b')",
        "zf.namelist() == ['a'] and zf.read('a') == b'b'",
    ),
    case(
        "a user list, dict, string",
        "ul = collections.UserList([1]); ud = collections.UserDict(a=1); us = collections.UserString('s')",
        "ul == [1] and ud['a'] == 1 and us == 's'",
    ),
    case("an mmap is named", "import mmap\nmm_ = mmap.mmap(-1, 16)", named="mm_: mmap"),
    case("a shared memory array", "import multiprocessing as mp\nmpa = mp.Array('i', 3)", named="mpa: "),
    case(
        "a ctypes array", "import ctypes\ncarr = (ctypes.c_int * 3)(1, 2, 3)", "list(carr) == [1, 2, 3]", known=_CTYPES
    ),
    case("environment variables as read", "import os\nenv_copy = dict(A='1')", same="env_copy"),
    case("os.environ itself", "env_live = os.environ", "env_live is os.environ"),
    case("sys.stdout itself", "out_live = sys.stdout", "out_live is sys.stdout"),
    case("sys.modules itself", "mods_live = sys.modules", "mods_live is sys.modules"),
    case("the shell itself", "ip_shell = get_ipython()", "ip_shell is get_ipython()"),
    case(
        "a container with sys.stdout",
        "out_box = {'to': sys.stdout, 'n': [1]}",
        "out_box['to'] is sys.stdout and out_box['n'] == [1]",
    ),
]
