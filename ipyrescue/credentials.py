"""What is a credential: told by what a text looks like, or by a name that says so. Names and values to verdicts.

Pure. It sees strings, bytes, and what stands directly in a short list, tuple, set or dict; not what is nested deeper,
not the attributes of objects, not the constants of functions. A name says so by its last word: `api_key` does,
`api_key_name` and `password_strength_model` do not. `token` alone is a word of this field, and counts only where the
text looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

LOOKED_AT_CHARACTERS = 4096
"""A credential further inside a text is not seen: a corpus of texts may show anything."""

SHORT_LENGTH = 64
"""A container with more items is data, and not looked into."""

REDACTED = "[redacted]"
"""What stands in source text where a credential stood."""

_CONTAINERS = frozenset(map(id, (list, tuple, set, frozenset, dict)))
_PLAIN = _CONTAINERS | frozenset(map(id, (str, bytes, int, float, bool, type(None))))
"""Types by identity: a metaclass may say how its classes hash."""

_PRIVATE_KEY = "-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_SHAPES = (
    r"(?<![\w+/.-])(?:"
    r"sk-(?:proj|svcacct|admin|ant|or)-[\w-]{20,}|sk-(?:[a-z0-9]{2,12}-){0,2}[A-Za-z0-9]{20,}"  # OpenAI and its like
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37,}|nvapi-[\w-]{40,}"
    r"|A[KS]IA[0-9A-Z]{16}(?![0-9A-Za-z])|AIza[\w-]{35}(?![\w-])|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"
    r"|xox[abeoprs]-[\w-]{10,}|xapp-[\w-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|SG\.[\w-]{22}\.[\w-]{43}"
    r"|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}|dckr_pat_[\w-]{20,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"  # a JWT
    r")"
    # A URL with a password that is no placeholder, or with a token
    r"|\w{1,20}://[^/\s:@'\"]*:(?!(?:\{[^@]*\}|<[^@]*>|\$\{\w+\}|\$[A-Z_]+|%\(\w+\)s|\*+)@)[^/\s:@'\"]+@"
    r"|[?&](?:access_|auth_|api_)?(?:token|key|secret|password)=[\w.~%-]{16,}"
    r"|(?i:\bbearer) +(?=[\w.~+/-]*\d)[\w.~+/-]{20,}=*"
    r"|(?<=;)(?i:password|pwd)=[^;\s'\"(){}<>$%*\[\]]+"  # of a connection string
)
_VALUE = re.compile(f"{_PRIVATE_KEY}|{_SHAPES}")
_VALUE_IN_TEXT = re.compile(
    rf"{_PRIVATE_KEY}.*?(?:-----END [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----|\Z)|{_SHAPES}", re.DOTALL
)

_NOUNS = (
    r"(?:db|ftp|login|mail|mongo|mysql|pg|postgres|redis|root|smtp|ssh|sudo|user)_?pass|passphrases?|secrets?|credentials?|(?:api|access|private|secret|auth|signing|encryption)_?keys?"
    r"|(?:access|auth|bearer|api|refresh|secret|bot|hf|hub|huggingface|github|gh|gitlab|slack|discord|telegram|wandb|openai"
    r"|aws|azure|gcp|jwt|oauth|jupyter)_?token"
)
_QUALIFIERS = (
    r"(?:_?(?:\d+|value|str|string|text|plain|raw|bytes|b64|dev|prod|production|staging|live|old|new|db|admin|root))*"
)
_SAYS_SO = re.compile(rf"(?:.*passw(?:or)?ds?|(?:.*_)?(?:{_NOUNS})){_QUALIFIERS}")
_SAYS_TOKEN = re.compile(rf"(?:.*_)?token{_QUALIFIERS}")
_RANDOM = re.compile(r"(?=[^\d]*\d)(?=[^A-Za-z]*[A-Za-z])[\w.~+/=-]{16,}")
_NO_VALUE = re.compile(
    r"\s*|\*+|\.+|-+|_+|[xX]{1,64}|<.*>|\{.*\}|\$\{.*\}|\$[A-Z_]+|%\(.*|\[redacted\]"
    r"|(?i:str|string|text|object|varchar|none|null|true|false|required|optional|hidden)"
    r"|(?i:passw(or)?ds?:?|passphrase:?|secret|token|credentials?|api_?key)\s*",
    re.DOTALL,
)
_VARIABLE_OF_THE_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")

_ENVIRONMENT_FILE = re.compile(
    r"^(?P<before>[ \t]*(?:export[ \t]+)?(?P<name>[A-Z][A-Z0-9_]*)=)(?P<text>[^\s'\"(){}\[\]$]{6,})[ \t]*$",
    re.MULTILINE,
)


def is_credential(name: str, value: Any) -> bool:
    """Whether *value*, called *name*, is one, or holds one directly; no code of the user is called."""
    kind = type(value)
    if issubclass(kind, (str, bytes)):
        return _is_one(name, _text(value))
    if id(kind) not in _CONTAINERS or len(value) > SHORT_LENGTH:
        return False
    items = list(value.items()) if kind is dict else [(None, item) for item in value]
    if any(id(type(item)) not in _PLAIN for _, item in items) or not any(type(i) in (str, bytes) for _, i in items):
        return False
    return any(_holds_one(name, key, item) for key, item in items)


def without_known_looks(text: str) -> str:
    """*text* without what is known by its look, whatever it is called."""
    return _VALUE_IN_TEXT.sub(REDACTED, text)


def is_named_so(name: str, text: str) -> bool:
    """Whether *name* says that *text* is a credential, and *text* is not only a word about one."""
    if says_so(name):
        return not _NO_VALUE.fullmatch(text) and not _names_the_environment(text)
    return _SAYS_TOKEN.fullmatch(_words(name)) is not None and _RANDOM.fullmatch(text) is not None


def says_so(name: str) -> bool:
    """Whether *name* says that what it names is a credential."""
    return _SAYS_SO.fullmatch(_words(name)) is not None


def _holds_one(name: str, key: Any, item: Any) -> bool:
    """Whether an item of a container is one: by its own look, its key, or the container's name."""
    if type(key) is str and _VALUE.search(key[:LOOKED_AT_CHARACTERS]):
        return True
    if type(item) not in (str, bytes):
        return False
    text = _text(item)
    return _is_one(name, text) or (type(key) is str and is_named_so(key, text))


def _text(value: str | bytes) -> str:
    """The beginning of a text, past a subclass that has methods of its own."""
    beginning = slice(LOOKED_AT_CHARACTERS)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, beginning).decode("latin-1")
    return str.__getitem__(value, beginning)


def _is_one(name: str, text: str) -> bool:
    if is_named_so(name, text) or _VALUE.search(text):
        return True
    return any(is_named_so(line["name"], line["text"]) for line in _lines_of_an_environment_file(text))


def _lines_of_an_environment_file(text: str) -> Iterable[re.Match[str]]:
    return _ENVIRONMENT_FILE.finditer(text) if "=" in text else ()


def _words(name: str) -> str:
    """`apiKey`, `X-Api-Key` and `API_KEY` as `api_key`; the end of a name says what it is."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[-80:])
    return re.sub(r"\W", "_", parted).lower()


def _names_the_environment(text: str) -> bool:
    return _VARIABLE_OF_THE_ENVIRONMENT.fullmatch(text) is not None and says_so(text)
