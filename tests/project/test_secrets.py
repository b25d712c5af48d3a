"""Where secrets come from, and that they are not seen."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.errors import ConfigError
from streamline.project.secrets import MASK, Masker, Secrets, is_secret_name
from tests.support.failures import refuses


def secrets_file(folder: Path, text: str, name: str = "secrets.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets_file(tmp_path, "shop-db: from-file\nother: from-file\n")
    monkeypatch.setenv("STREAMLINE_SECRET_SHOP_DB", "from-env")
    secrets = Secrets(tmp_path)
    assert secrets.get("shop-db") == "from-env"
    assert secrets.get("other") == "from-file"
    assert secrets.find("absent") is None


def test_numbers_are_the_text_that_was_written(tmp_path: Path) -> None:
    secrets_file(tmp_path, 'pin: 1_234\nlong: 0012\nrate: 1.50 # x\ntemplate: "{{ x }}"\n')
    secrets = Secrets(tmp_path)
    assert [secrets.get(name) for name in ("pin", "long", "rate", "template")] == ["1_234", "0012", "1.50", "{{ x }}"]


def test_json_works_too(tmp_path: Path) -> None:
    secrets_file(tmp_path, '{"a": "b\\nc"}', "secrets.json")
    assert Secrets(tmp_path).get("a") == "b\nc"


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secrets_file(tmp_path, "a: b\n").chmod(0o640)
    with refuses("secret.file_not_private") as caught:
        Secrets(tmp_path).get("a")
    assert "chmod 600" in str(caught.value.hint)


def test_a_secret_must_be_text(tmp_path: Path) -> None:
    secrets_file(tmp_path, "a:\n  b: c\n")
    with refuses("secret.not_text"):
        Secrets(tmp_path).get("a")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "db_password",
            "PASSWORD",
            "dbPassword",
            "pwd",
            "passphrase",
            "token",
            "access_token",
            "authToken",
        ),
        *(
            "client_secret",
            "clientsecret",
            "secret_access_key",
            "aws_secret_access_key",
            "api_key",
            "apiKey",
            "api-key",
        ),
        *(
            "key",
            "private_key",
            "credentials",
            "credentials_json",
            "google_credential",
            "keys",
            "ssl_key",
            "Authorization",
        ),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "host",
            "user",
            "path",
            "replication_key",
            "key_properties",
            "primary_key",
            "monkey",
            "keyboard",
            "column_key",
        ),
        *("partition_keys", "bookmark_key", "sort_key", "compass", "start_date", "keyspace"),
    ],
)
def test_names_of_what_is_no_secret(name: str) -> None:
    assert not is_secret_name(name)


def masked_by(config: object, text: str) -> str:
    masker = Masker()
    masker.add_config(config)
    return masker.mask(text)


def test_config_values_are_masked_at_any_depth() -> None:
    config = {
        "host": "db.example",
        "password": "hunter22",
        "auth": [{"api_key": 123456, "user": "reader"}],
        "credentials": {"nested": {"value": "deep-value"}},
        "flag_token": True,
        "nothing_secret": None,
    }
    text = "db.example hunter22 123456 reader deep-value True None"
    assert masked_by(config, text) == f"db.example {MASK} {MASK} reader {MASK} True None"


def test_passwords_in_urls_are_masked() -> None:
    assert masked_by({"url": "postgresql://u:s3cr%40t@h/d"}, "s3cr%40t and s3cr@t") == f"{MASK} and {MASK}"


def test_json_in_a_string_is_looked_into() -> None:
    config = {"credentials": '{"client_email": "me@x", "private_key": "kkk-kkk-kkk"}'}
    assert masked_by(config, "failed for kkk-kkk-kkk of me@x") == f"failed for {MASK} of me@x"


def test_other_spellings_are_masked_too() -> None:
    masker = Masker()
    masker.add('a"b\nc/d e')
    for seen in ('a"b\nc/d e', 'a\\"b\\nc/d e', "a%22b%0Ac/d%20e", "a%22b%0Ac%2Fd%20e"):
        assert masker.mask(f"<{seen}>") == f"<{MASK}>"


def test_each_line_of_a_key_is_masked() -> None:
    masker = Masker()
    masker.add("-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n")
    assert masker.mask("line kqhkiG9w0BAQEF here") == f"line {MASK} here"
    assert masker.mask("-----BEGIN KEY-----") == "-----BEGIN KEY-----"


def test_short_secrets_count_as_words_and_tiny_ones_not_at_all() -> None:
    masker = Masker()
    masker.add("abc")
    masker.add("x")
    masker.add("")
    assert masker.mask("abc abcd xabc u:abc@h x") == f"{MASK} abcd xabc u:{MASK}@h x"


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    masker = Masker()
    masker.add("secret-a")
    masker.add("secret-a-longer")
    assert masker.mask("secret-a-longer") == MASK


@given(st.text(min_size=6, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="*")), st.text())
def test_a_secret_is_never_left(secret: str, around: str) -> None:
    masker = Masker()
    masker.add(secret)
    # An ordinary word is masked as a word of its own: `postgres` is no secret in `postgresql`.
    gap = " " if secret.isalpha() else ""
    text = f"{around}{gap}{secret}{gap}{around}"
    assert secret not in masker.mask(text)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("s3cr/t+x y", "s3cr%2ft%2bx%20y s3cr%2Ft%2Bx+y s3cr\\/t+x y czNjci90K3ggeQ=="),
        ("hunter2", "aHVudGVyMg=="),
        ("first-line\nsecond\nthird-line", "second"),
        ("-----BEGIN KEY-----\nMIIEvQIBADANBg\nZq9=\n-----END KEY-----\n", "Zq9="),
    ],
)
def test_a_secret_is_masked_as_programs_encode_it(secret: str, text: str) -> None:
    masker = Masker()
    masker.add(secret)
    assert set(masker.mask(text).replace(MASK, "").strip()) <= {"=", " "}


@pytest.mark.parametrize("around", [("", ""), ("user:", ""), ("me:", ":x"), ("u:", "\n{}"), ("a", "b")])
def test_a_secret_is_masked_inside_base64(around: tuple[str, str]) -> None:
    masker = Masker()
    masker.add("hunter2?>hunter2")
    for encode in (b64encode, urlsafe_b64encode):
        text = encode(f"{around[0]}hunter2?>hunter2{around[1]}".encode()).decode()
        masked = masker.mask(text)
        assert MASK in masked
        assert len(masked.replace(MASK, "")) <= len(text) - 19  # 16 bytes, without the characters that they share


@pytest.mark.parametrize(
    ("value", "password"),
    [
        ("https://host/x?api_key=hunter22&b=1", "hunter22"),
        ("BlobEndpoint=https://x;AccountName=me;AccountKey=aGk+x/y==;Suffix=z", "aGk+x/y=="),
        ("postgresql://u:p@ss/w0rd@host/db", "p@ss/w0rd"),
        ("postgresql://host/db?user=u&password=hunter22&x=1", "hunter22"),
        ("host=db user=u password=hunter22 dbname=d", "hunter22"),
        ("Server=db;Pwd='hunter 22';Database=d", "hunter 22"),
    ],
)
def test_passwords_in_connection_strings_are_masked(value: str, password: str) -> None:
    assert password not in masked_by({"url": value}, f"cannot connect with {password}: {value}")


def test_secrets_in_the_environment_are_masked_before_a_template_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_SHOP", "hunter22")
    assert Secrets(tmp_path).masker.mask("it is hunter22") == f"it is {MASK}"


def test_an_error_in_the_secrets_file_quotes_none(tmp_path: Path) -> None:
    secrets_file(tmp_path, "a: !hunter22\n")
    with pytest.raises(ConfigError) as caught:
        Secrets(tmp_path).get("a")
    assert caught.value.code == "yaml.invalid"
    assert "hunter22" not in f"{caught.value} {caught.value.hint}"


def test_values_of_the_file_are_masked_before_a_template_asks(tmp_path: Path) -> None:
    secrets_file(tmp_path, "unused: nobody-asked-for-this\n")
    assert "nobody" not in Secrets(tmp_path).masker.mask("it is nobody-asked-for-this")


def test_a_file_that_cannot_be_used_is_told_at_every_use(tmp_path: Path) -> None:
    secrets_file(tmp_path, "a: b\n").chmod(0o640)
    secrets = Secrets(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError):
            secrets.get("a")


def test_a_password_that_is_an_ordinary_word_leaves_other_words_alone() -> None:
    masker = Masker()
    masker.add("postgres")
    text = "tap for 'postgresql', tap-postgres, target_postgres, postgres://db"
    assert masker.mask(text) == text
    assert masker.mask("password=postgres, 'postgres'") == f"password={MASK}, '{MASK}'"


@pytest.mark.parametrize("secret", ["postgres", "a1!"])
@pytest.mark.parametrize(
    "before", ["password%3D", "%3apassword%3d", "line\\n", "\\u003d", "postgres://u:", "PGPASSWORD="]
)
def test_a_short_secret_is_masked_after_an_escape(secret: str, before: str) -> None:
    masker = Masker()
    masker.add(secret)
    masked = masker.mask(f"{before}{secret}@host")
    assert masked == f"{before}{MASK}@host"
