"""What is a credential and what is an ordinary variable of this field: two long tables."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from typing import Any

import pytest

from ipyrescue.credentials import LOOKED_AT_CHARACTERS, SHORT_LENGTH, is_credential

KEY = "sk-" + "a1B2" * 8
ALPHANUMERIC = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"
HEX = hashlib.sha256(b"a hash is no credential").hexdigest()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

CREDENTIALS_BY_VALUE = [
    KEY, "sk-" + "a" * 30, "sk-proj-" + "Ab1_" * 10, "sk-ant-api03-" + "Ab1-" * 20, "sk-or-v1-" + HEX,
    "ghp_" + ALPHANUMERIC, "gho_" + ALPHANUMERIC, "ghs_" + ALPHANUMERIC, "github_pat_" + ALPHANUMERIC,
    "glpat-" + ALPHANUMERIC[:20], "hf_" + ALPHANUMERIC[:34], "gsk_" + ALPHANUMERIC * 2, "r8_" + ALPHANUMERIC * 2,
    "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", "AIza" + ALPHANUMERIC[:35], "xoxb-123456789012-abcdefghijkl",
    "xoxp-1234567890-abc", "sk_live_" + ALPHANUMERIC[:24], "rk_test_" + ALPHANUMERIC[:24], "npm_" + ALPHANUMERIC[:36],
    "SG." + "a1B2c3" * 3 + "abcd." + "x" * 43, JWT, PEM, PEM.replace("RSA ", ""), PEM.replace("RSA", "OPENSSH"),
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\nx", "postgres://me:hunter2@host/db", "postgresql+psycopg2://me:p$w@host/db",
    "redis://:hunter2@localhost:6379/0", "https://user:pass@example.org/x.git", f"see {KEY} in the wiki",
    f"client = OpenAI(api_key='{KEY}')", "http://localhost:8888/?token=" + HEX[:48], f"Bearer {HEX}",
    f"https://maps.example.org/api?size=3&key={ALPHANUMERIC[:32]}", "DEBUG=1\nDB_PASSWORD=hunter2\n",
    "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", KEY.encode(), PEM.encode(),
    "DRIVER={ODBC};SERVER=x;UID=me;PWD=hunter2;", "Server=x;User=me;Password=hunter2",
]  # fmt: skip

CREDENTIALS_BY_NAME = {
    "password": "hunter2", "passwd": "xyz", "db_password": "hunter2", "PASSWORD": "hunter2", "password2": "hunter2",
    "PGPASSWORD": "hunter2", "SMTP_PASS": "hunter2",
    "password_prod": "hunter2", "passphrase": "correct horse battery staple", "old_password": b"hunter2",
    "api_key": "abc", "apikey": "abc", "API_KEY": "abc", "openai_api_key": "abc", "api_key_2": "abc", "apiKey": "abc",
    "access_key": "abc", "aws_secret_access_key": "abc", "secret_key": "abc", "client_secret": "abc", "secret": "abc",
    "private_key": "abc", "credentials": "me:abc", "auth_key": "abc", "HF_TOKEN": "anything", "github_token": "abc",
    "access_token": "abc", "refresh_token": "abc", "api_token": "abc", "wandb_token_prod": "abc",
    "jupyter_token": "abc", "SECRET_TOKEN": "abc", "token": HEX, "my_token": ALPHANUMERIC, "TOKEN": "0a1b2c3d4e5f6a7b",
    "passwords": ["hunter2", "letmein"], "api_keys": ("abc", "def"),
}  # fmt: skip

CONTAINERS = [
    {"api_key": "hunter2"}, {"apiKey": "hunter2", "lr": 0.1, "layers": [1, 2]}, {"x-api-key": "hunter2"},
    {"password": b"hunter2"}, {"user": "me", "Password": "hunter2"}, {"a": KEY}, {"a": KEY.encode()}, {KEY: "me"},
    {"Authorization": f"Bearer {HEX}"}, {"url": "postgres://me:hunter2@host/db"}, [KEY], ("x", KEY), {KEY},
    frozenset({KEY, "x"}), {"token": HEX}, {"n": None, "client_secret": "abc"},
]  # fmt: skip


class Text(str):
    """A text with a look of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("code of the user was called")

    __repr__ = __getitem__ = __len__ = __eq__ = __hash__ = __str__  # type: ignore[assignment]


class Mapping(dict):
    """A dict that may do anything when it is asked."""

    def items(self) -> Any:
        raise AssertionError("code of the user was called")


ORDINARY = {
    # the words of this field
    "tokenizer": "bert-base-uncased", "tokens": ["a", "b"], "token_ids": [1, 2], "token": "the", "key": "column",
    "keys": ["a", "b"], "n_keys": "3", "secret_santa_df": "x", "secret_santa": {"Ann": "Bob"}, "key_frames": ["1", "2"],
    "max_tokens": "512", "pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "mask_token": "[MASK]",
    "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]", "eot_token": "<|endoftext|>",
    "image_token": "<image_placeholder_token>", "next_token": "Ġinternationalization", "last_token": "fox",
    "special_tokens": ["<s>", "</s>"], "special_tokens_map": {"pad_token": "<pad>", "eos_token": "</s>"},
    "token_to_id": {"the": 1, "password": 2}, "id_to_token": {1: "the", 2: "secret"}, "token_type": "bearer",
    "vocab": {"password": 7, "token": 8, "secret": 9}, "stop_token": "\n\n", "tokenized": "a b c",
    "tokenizer_name": "hf-internal-testing/tiny-random-gpt2", "token_path": "/data/tokens.bin",
    "password_strength_model": "bert", "password_field": "#pw", "password_column": "pw", "password_length": "12",
    "secretary": "Ann", "secret_name": "prod/db", "sort_key": "date", "primary_key": "id", "dict_key": "a",
    "foreign_key": "user_id", "key_name": "a", "cache_key": "model:1", "rng_key": "jax", "prng_key": "0",
    "keyword": "x", "api_keys_df": "x", "api_key_name": "OpenAI", "api_key_header": "X-Api-Key",
    "api_key": "OPENAI_API_KEY", "public_key": "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "monkey": "x", "keyboard": "qwerty",
    "turkey": "x", "passwordless": "yes",
    "forward_pass": "x", "n_pass": "1", "compass": "N", "bypass": "x", "account_key": "A-1",
    "author": "me", "authority": "x", "api_version": "2024-01-01", "api": "v1",
    "password": "", "passwd": "${DB_PASSWORD}", "secret": "<your secret here>", "secret_key": "[redacted]",
    "schema": {"user": "varchar", "password": "varchar"}, "dtypes": {"password": "object", "token": "string"},
    "labels": {"password": "Password:"}, "columns": ["user", "password", "token", "api_key"],
    "environment_names": {"api_key": "OPENAI_API_KEY"}, "prompt": "Enter your password: ",
    # the look of data
    "sha256": HEX, "md5": HEX[:32], "commit": HEX[:40], "run_id": str(uuid.UUID(int=7)), "number": "4111111111111111",
    "encoded": base64.b64encode(bytes(range(256)) * 8).decode(), "raw_bytes": bytes(range(256)) * 8,
    "key_bytes": b"\x00\x01", "encoded_url": base64.urlsafe_b64encode(bytes(range(256)) * 8).decode(),
    "header": "eyJhbGciOiJIUzI1NiJ9", "library": "sk-learn", "package": "sk-learn-contrib-categorical-encoding",
    "job": "task-classification-of-long-documents-v2", "service": "disk-usage-monitoring-service-for-clusters",
    "mask": "mask-" + "a" * 40, "model_name": "hf-internal-testing/tiny-random-LlamaForCausalLM",
    "checkpoint": "hf_internal_testing_tiny_random_gpt2_model", "model": "meta-llama/Llama-3.1-8B-Instruct",
    "module": "ghp_module_of_a_project_with_a_long_name", "path": "/home/me/.ssh/id_rsa", "file": "s3://bucket/key/file.csv",
    "url": "https://example.org/path", "url_port": "http://localhost:8888/lab", "url_at": "https://example.org:8080/@me/x",
    "url_query": "https://example.org/?q=token&page=2", "url_page": "https://example.org/?page_token=" + HEX,
    "database": "postgresql://{user}:{password}@{host}/db", "database_2": "postgres://me:${DB_PASSWORD}@host/db",
    "database_3": "postgresql://me:<password>@host/db", "database_4": "postgresql://me@host:5432/db",
    "git": "git@github.com:me/repo.git", "ssh": "ssh://git@host:22/repo", "sqlite": "sqlite:///data.db", "ipv6": "http://[::1]:8/",
    "sql": "SELECT token, api_key FROM users WHERE password = ?", "mail": "me@example.org", "time": "12:30:15@UTC",
    "text": "The secret of a good password is its length. A token is a word.", "bearer": "the bearer of long news",
    "code": "api_key = os.environ['API_KEY']\nTOKEN = None\n", "shell": "TOKEN=1\nMODE=training\n", "none": "None",
    "dna": "ACGT" * 50, "uuid_list": [str(uuid.UUID(int=i)) for i in range(5)], "words": ["sk", "hf", "ghp", "AKIA"],
    "names": ["token", "password", "secret"], "config": {"lr": 0.1, "tokenizer": "bpe", "key": "a", "max_tokens": "5"},
    "nothing": "", "empty": {}, "pad": {"pad_token": "<pad>", "token": "the"}, "csv": "user,password\nme,x\n",
    "long": "x " * LOOKED_AT_CHARACTERS + KEY,
}  # fmt: skip

UNSEEN = {
    "a number": ("password", 1234),
    "nested": ("config", {"openai": {"api_key": "hunter2"}}),
    "a long list": ("texts", ["x"] * SHORT_LENGTH + [KEY]),
    "beside a model": ("state", {"model": object(), "api_key": "hunter2"}),
    "a class of its own": ("mapping", Mapping(api_key="hunter2")),
}


@pytest.mark.parametrize("value", CREDENTIALS_BY_VALUE, ids=range(len(CREDENTIALS_BY_VALUE)))
def test_a_credential_is_known_by_its_look(value: str | bytes) -> None:
    """Whatever it is called, and in a short container too."""
    assert is_credential("x", value)
    assert is_credential("x", ["a", value])


def test_a_credential_is_known_by_its_name() -> None:
    assert {name for name, value in CREDENTIALS_BY_NAME.items() if not is_credential(name, value)} == set()


@pytest.mark.parametrize("value", CONTAINERS, ids=range(len(CONTAINERS)))
def test_a_short_container_is_looked_into(value: Any) -> None:
    assert is_credential("config", value)


def test_ordinary_variables_are_never_caught() -> None:
    assert {name for name, value in ORDINARY.items() if is_credential(name, value)} == set()


def test_ordinary_texts_are_kept_whatever_their_name() -> None:
    """A text that is ordinary under its name is ordinary in a list and in a dict."""
    texts = [value for name, value in ORDINARY.items() if isinstance(value, (str, bytes)) and name != "long"]

    assert [text for text in texts if is_credential("x", [text]) or is_credential("x", {"a": text})] == []


@pytest.mark.parametrize("case", UNSEEN)
def test_what_the_rule_does_not_see(case: str) -> None:
    """It is said in README.md."""
    assert not is_credential(*UNSEEN[case])


def test_no_code_of_the_user_is_called() -> None:
    assert is_credential("x", Text(KEY))
    assert not is_credential("x", [Mapping(), Text("a"), "b"])


def test_looking_takes_no_time() -> None:
    """A namespace of thousands of texts is looked at in each pause."""
    longest = {"x": "sk-gh_://a:b " * 1000, "y": [base64.b64encode(bytes(range(256)) * 12).decode()] * SHORT_LENGTH}
    started = time.perf_counter()
    for name, value in longest.items():
        is_credential(name, value)

    assert time.perf_counter() - started < 0.5
