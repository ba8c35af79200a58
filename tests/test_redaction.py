"""Texts without credentials: what is left out of cells, sources and messages, what stays, and how long that takes."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pytest
from test_credentials import HEX, KEY, PEM

from ipyrescue.credentials import LOOKED_AT_CHARACTERS
from ipyrescue.redaction import redacted, shows_a_secret

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LONG = "aB3" * LOOKED_AT_CHARACTERS


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        (f"client = OpenAI('{KEY}')", "client = OpenAI('[redacted]')"),
        (f'%env OPENAI={KEY}\nx = "{KEY}"', '%env OPENAI=[redacted]\nx = "[redacted]"'),
        ("password = 'hunter2'", "password = '[redacted]'"),
        ("connect(user='me', password=\"hunter2\")", "connect(user='me', password=\"[redacted]\")"),
        ("os.environ['DB_PASSWORD'] = 'hunter2'", "os.environ['DB_PASSWORD'] = '[redacted]'"),
        ("os.environ.setdefault('DB_PASSWORD', 'hunter2')", "os.environ.setdefault('DB_PASSWORD', '[redacted]')"),
        ("{'api_key': 'hunter2', 'n': 1}", "{'api_key': '[redacted]', 'n': 1}"),
        ("{'x-api-key': 'hunter2'}", "{'x-api-key': '[redacted]'}"),
        ("api_key = ('abc' 'def')", "api_key = ('[redacted]')"),
        ("password: str = '''a\nb'''", "password: str = '''[redacted]'''"),
        ("config = '''{\"api_key\": \"hunter2\"}'''", "config = '''{\"api_key\": \"[redacted]\"}'''"),
        ("# don't: password = 'hunter2'", "# don't: password = '[redacted]'"),
        (f"token = '{HEX}'", "token = '[redacted]'"),
        ("%env DB_PASSWORD=hunter2", "%env DB_PASSWORD=[redacted]"),
        ("%env DB_PASSWORD hunter2", "%env DB_PASSWORD [redacted]"),
        ("!export API_KEY=hunter2 && run", "!export API_KEY=[redacted] && run"),
        ("%%bash\nexport API_KEY=hunter2\nrun", "%%bash\nexport API_KEY=[redacted]\nrun"),
        (f"!curl -H 'Authorization: Bearer {HEX}' x", "!curl -H 'Authorization: [redacted]' x"),
        ("url = 'postgres://me:hunter2@host/db'", "url = '[redacted]host/db'"),
        (f"key = '''{PEM.strip()}'''", "key = '''[redacted]'''"),
        (f"key = '''{PEM.strip()[:40]}", "key = '''[redacted]"),
        ("class Config:\n    password = 'hunter2'", "class Config:\n    password = '[redacted]'"),
        (f"try:\n    token = '{HEX}'\nexcept: pass", "try:\n    token = '[redacted]'\nexcept: pass"),
        ("if x:\n    api_key = 'hunter2'", "if x:\n    api_key = '[redacted]'"),
        ("if x:\n    api_key = 'hunter2'\nelse\n", "if x:\n    api_key = '[redacted]'\nelse\n"),
        ("password: Optional[str] = 'hunter2'", "password: Optional[str] = '[redacted]'"),
        ("password: Optional[str] = 'hunter2' +", "password: Optional[str] = '[redacted]' +"),
        (f"my_token, o = '{HEX}', 3", "my_token, o = '[redacted]', 3"),
        ("user, (password, n) = 'me', ('hunter2', 1)", "user, (password, n) = 'me', ('[redacted]', 1)"),
        ("x = os.getenv('API_TOKEN', 'hunter2')", "x = os.getenv('API_TOKEN', '[redacted]')"),
        ("password = get() or 'hunter2'", "password = get() or '[redacted]'"),
        ("password = SecretStr('hunter2')", "password = SecretStr('[redacted]')"),
        ("password = 'hunter2'.encode()", "password = '[redacted]'.encode()"),
        ("password = f'{user}hunter2'", "password = f'[redacted]'"),
        ("x = f\"{connect(password='hunter2')}\"", 'x = f"[redacted]"'),
        ("x = y\nprint(password := b'hunter2')", "x = y\nprint(password := b'[redacted]')"),
        ("secrets = [\n  'hunter2', 'x' + '4'\n]", "secrets = [\n  '[redacted]', 'x' + '[redacted]'\n]"),
        ("if 'hunter2' == password != 'x4': pass", "if '[redacted]' == password != '[redacted]': pass"),
        ("lambda *, a=1, password='hunter2': 1", "lambda *, a=1, password='[redacted]': 1"),
        ("add('--password', '-p', default='hunter2')", "add('--password', '-p', default='[redacted]')"),
        (f"wandb.login(key='{HEX[:40]}')", "wandb.login(key='[redacted]')"),
        ("get(url, auth=('me', 'hunter2'))", "get(url, auth=('me', '[redacted]'))"),
        ("ß = 'é\\d'; password = '\\'hunter2'", "ß = 'é\\d'; password = '[redacted]'"),
        (
            "!ls\nx = !ls\nx?\nif x:\n  %time\n  secret, y = 'x4', 2",
            "!ls\nx = !ls\nx?\nif x:\n  %time\n  secret, y = '[redacted]', 2",
        ),
        ("%%time\nsecret, y = 'x4', 2", "%%time\nsecret, y = '[redacted]', 2"),
        ("await f(password=g('x', '\\N{BULLET}x4'))", "await f(password=g('x', '[redacted]'))"),
        (f"password = '{LONG}'", "password = '[redacted]'"),
        (f"if x:\n    d['y'].password = '{LONG * 9}'", "if x:\n    d['y'].password = '[redacted]'"),
        (
            "%%bash\nexport SECRET_TOKEN=x4\nrun --password 'x4' -u me:x4",
            "%%bash\nexport SECRET_TOKEN=[redacted]\nrun --password '[redacted]' -u me:[redacted]",
        ),
        ("!curl -u me:x4 http://a", "!curl -u me:[redacted] http://a"),
        ("x = 1\r\nsecret, y = 'x4', 2\rz = 3", "x = 1\r\nsecret, y = '[redacted]', 2\rz = 3"),
        ("abcé=!ls\nsecret, y = 'x4', 2", "abcé=!ls\nsecret, y = '[redacted]', 2"),
        (f"!wandb login {HEX}; hf login --token {HEX}", "!wandb login [redacted]; hf login --token [redacted]"),
        ("%%writefile .env\nPASSWORD = x4\nAPI_KEY=x4", "%%writefile .env\nPASSWORD = [redacted]\nAPI_KEY=[redacted]"),
        ("%%writefile a.yaml\ndb:\n  password: x4", "%%writefile a.yaml\ndb:\n  password: [redacted]"),
        ("c = connect('Server=x;Password=x4;')", "c = connect('Server=x;[redacted];')"),
    ],
)
def test_credentials_are_left_out_of_source_text(source: str, kept: str) -> None:
    assert redacted(source) == kept
    assert redacted(kept) == kept
    assert shows_a_secret(source)


@pytest.mark.parametrize(
    "source",
    [
        "tokenizer = AutoTokenizer.from_pretrained('bert-base-uncased')",
        "tokenizer.add_special_tokens({'pad_token': '<pad>', 'eos_token': '</s>'})\npad_token = '<pad>'",
        "tokens = ['a', 'b']\ntoken_ids = {'input': 'x'}\nn_keys, key = 3, 'column'",
        "password = getpass.getpass('password: ')\nx = 'abc'\ny = 'it'",
        "api_key = os.environ['API_KEY']\nkey = os.environ.get('API_KEY', '')",
        "for token in 'a b'.split(): print('token', token)",
        "%timeit key = 'value'\n!pip install secret-santa",
        "assert token == 'x', 'a token: ' + token",
        "df.sort_values(key='date')  # don't use a secret\nx = 'a'",
        "password = f'{first}{second}'",
        "def f(x: 'token', password: str = None): '''The password: 'x'.'''",
        "x = '''an 'odd' text''' \"it's\" 'said \"so\"'",
        "password = open('password.txt').read()\napi_key = config['openai']['name']\nsecret = get_secret('db')",
        "class Password:\n    '''What it is.'''\n\ndef of_password():\n    'It is.'\n    if not password:\n        'x'",
        "%%writefile a.py\nself.password = password\ntoken: str = token",
        "%%time\npassword = mine",
        "%%markdown\nthe password is a secret of the key",
        "user, secret_key = load('me', x)[0], 4",
        "!docker run -u 1000:1000 x",
        "print(f'{password}: {token!r}')\nprint('token', token)",
    ],
)
def test_ordinary_code_is_kept_as_it_is(source: str) -> None:
    assert redacted(source) == source


@pytest.mark.parametrize(
    "source",
    {
        "an image": "image = '" + "iVBORw0" * 40_000 + "'", "one word": "x" * 300_000, "empty lines": "\n" * 300_000,
        "blanks": " " * 300_000, "open quotes": "x = 'a\n" * 40_000, "a long word": "%run " + "token" * 60_000,
        "many words": "!" + "x " * 150_000, "no values": "key: " * 60_000, "dashes": "a-" * 150_000,
        "triple quotes": "'''" * 99_999, "escapes": "\\'" * 150_000, "names": "password = " * 30_000,
        "pairs": "('a'," * 60_000, "schemes": "a://" * 70_000, "an open text": '"""' + "x '" * 90_000,
        "assignments": "A=" * 150_000, "no JWT": "eyJ" * 99_999, "a rule": "#" * 99_999,
        "a chain": "token" + "+a" * 40_000, "a comparison": "token" + "==a" * 30_000, "dots": "token" + ".a" * 40_000,
        "deep": "f(" * 9_000 + "token", "targets": "a = " * 20_000 + "'token'", "bytes": "x = '\\x00' # key\n" * 5_000,
        "a tuple": f"({'token,' * 9_000}) = f({'1,' * 9_000})", "named": "password = f(x, 'abc')\n" * 4_000,
        "an annotation": "a: " + "b " * 90_000 + "token", "users": "!key " + " -u a" * 50_000, "nothing": "key\0",
        "comments": "# key " * 50_000, "a comment": "key = a.b# x",
    }.values(),
)  # fmt: skip
def test_a_large_cell_takes_no_time(source: str) -> None:
    """It is looked at before it runs. What is bounded is the work, not the time of a machine that does other things."""
    started = time.process_time()
    redacted(source)

    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    ("message", "shows"),
    [
        (f"AuthenticationError: Incorrect API key provided: {KEY}", True),
        ("OperationalError: postgres://me:hunter2@host/db refused", True),
        ("ValueError: password='hunter2' is too short", True),
        ("KeyError: 'api_key'", True),
        ("login failed, password: hunter2", True),
        ("KeyError: 'pad_token'", False),
        ("RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB", False),
        ("TypeError: 'tokenizer' object is not callable", False),
        ("ValueError: could not convert string to float: 'abc'", False),
    ],
)
def test_an_error_that_may_show_a_credential_is_known(message: str, shows: bool) -> None:
    assert shows_a_secret(message) == shows


def test_ordinary_cells_take_no_time() -> None:
    """Each is looked at before it runs: all of our own notebooks, which are long, in a millisecond for each."""
    found = [json.loads(path.read_text(encoding="utf-8"))["cells"] for path in NOTEBOOKS.glob("*.ipynb")]
    cells = ["".join(cell["source"]) for notebook in found for cell in notebook if cell["cell_type"] == "code"]
    took = []
    for _ in range(5):
        started = time.perf_counter()
        for cell in cells:
            redacted(cell)
        took.append(time.perf_counter() - started)

    assert min(took) < 0.001 * len(cells)


def test_looking_at_a_cell_warns_of_nothing_in_it() -> None:
    """Python warns of it when it runs."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert redacted("password = '\\d hunter2'") == "password = '[redacted]'"

    assert told == []
