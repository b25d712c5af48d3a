"""The settings of a value's format: `serde_config`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from streamline.connectors.setting_kinds import Kinds, Settings, choice, flag, secret_text, text, texts
from streamline.connectors.stream_connector import Side, StreamContext

Method: TypeAlias = Literal["JSON", "JSON_SCHEMA", "AVRO", "PROTOBUF", "STRING", "RAW_VALUE"]
SubjectStrategy: TypeAlias = Literal["topic", "record", "topic-record"]

_METHOD = choice("JSON", "JSON_SCHEMA", "AVRO", "PROTOBUF", "STRING", "RAW_VALUE", fold=str.upper)

SERDE_KINDS: Kinds = {
    "serialization_method": _METHOD,
    "key_serialization_method": _METHOD,
    "schema": text,
    "key_schema": text,
    "schema_classpath": text,
    "message": text,
    "schema_registry_url": texts,
    "schema_registry_username": secret_text,
    "schema_registry_password": secret_text,
    "schema_registry_token": secret_text,
    "schema_registry_cafile": text,
    "subject_strategy": choice("topic", "record", "topic-record"),
    "register_schemas": flag,
}


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a schema registry.

    Args:
        urls: tried in turn.
        token: sent as a bearer token, instead of username and password.
        cafile: certificates that its own is checked with; None: those of the system.
    """

    urls: tuple[str, ...]
    username: str | None = None
    password: str | None = None
    token: str | None = None
    cafile: str | None = None


class Serde(msgspec.Struct, frozen=True, kw_only=True):
    """The format of values, or of keys.

    Args:
        schema: file of the schema: JSON Schema, Avro (`.avsc`) or Protobuf (`.proto`).
        schema_class: `package.module.Class` of a generated Protobuf class.
        message: full name of the Protobuf message, where the schema has several.
        registry: of schemas; None: values have no schema id in front.
        strategy: what a schema's subject in the registry is named after.
        register: schemas that the registry does not have are registered; False: that is an error.
        key: the format of keys; None: text, or bytes where they are not UTF-8.
        for_key: it is a key's.
    """

    method: Method = "JSON"
    schema: Path | None = None
    schema_class: str | None = None
    message: str | None = None
    registry: RegistrySettings | None = None
    strategy: SubjectStrategy = "topic"
    register: bool = True
    key: Serde | None = None
    for_key: bool = False

    @property
    def format(self) -> str:
        """Return a name that is equal for formats whose values can pass from one to the other as they are."""
        parts = [self.method, str(self.schema or ""), self.schema_class or "", self.message or ""]
        if self.registry is not None:
            parts = [self.method, *sorted(self.registry.urls)]
        return " ".join(filter(None, parts))


def serde_settings(given: Settings, side: Side, context: StreamContext) -> Serde:
    """Read and check `serde_config`.

    Raises:
        ConfigError: two settings contradict each other, one is missing, or a file is missing.
    """
    registry = _registry(given, context)
    value = _serde(given, given.get("serialization_method", "JSON"), "schema", registry, context.root)
    key = None
    if "key_serialization_method" in given:
        key = _serde(given, given["key_serialization_method"], "key_schema", registry, context.root)
    elif "key_schema" in given:
        given.fail("`key_schema` needs `key_serialization_method`", "key_schema", hint="add it")
    if value.registry is None and (key is None or key.registry is None):
        hint = "JSON with a registry is `serialization_method: JSON_SCHEMA`" if value.method == "JSON" else "remove it"
        _refuse(given, _OF_REGISTRY, f"no effect with `serialization_method: {value.method}`", hint)
    elif side == "source":
        _refuse(given, _OF_SINK, "no effect on a source, which takes the schema that a value names", "remove it")
    return msgspec.structs.replace(value, key=key)


_OF_SINK = ("subject_strategy", "register_schemas")
_OF_REGISTRY = ("schema_registry_url", *_OF_SINK)
_SUFFIXES = {"AVRO": (".avsc", ".json"), "PROTOBUF": (".proto",)}


def _refuse(given: Settings, keys: tuple[str, ...], why: str, hint: str) -> None:
    for key in keys:
        if key in given:
            given.fail(f"`{key}` has {why}", key, hint=hint)


def _serde(given: Settings, method: Method, schema_key: str, registry: RegistrySettings | None, root: Path) -> Serde:
    for_key = schema_key == "key_schema"
    method_key = "key_serialization_method" if for_key else "serialization_method"
    schema_class = None if for_key else given.get("schema_classpath")
    if not for_key:
        if method != "PROTOBUF":
            _refuse(given, ("schema_classpath", "message"), f"no effect with `{method_key}: {method}`", "remove it")
        given.refuse_both("schema_classpath", "schema")
        given.refuse_both("schema_classpath", "schema_registry_url", "values of a class have no schema id in front")
        given.refuse_both("schema_classpath", "message", "the class is the message")
    if method in ("STRING", "RAW_VALUE"):
        _refuse(given, (schema_key,), f"no effect with `{method_key}: {method}`", "remove it")
    if method in ("JSON", "STRING", "RAW_VALUE"):
        registry = None
    elif registry is None and method == "JSON_SCHEMA":
        hint = f"add it; to check JSON without a registry, use `{method_key}: JSON` with `{schema_key}`"
        given.fail(f"`{method_key}: JSON_SCHEMA` needs `schema_registry_url`", method_key, hint=hint)
    elif registry is None and schema_key not in given and schema_class is None:
        hint = f"add it, or the file of the schema: `{schema_key}`"
        given.fail(f"`{method_key}: {method}` needs `schema_registry_url`", method_key, hint=hint)
    return Serde(
        method=method,
        schema=_schema_file(given, method, schema_key, root),
        schema_class=schema_class,
        message=None if for_key else given.get("message"),
        registry=registry,
        strategy=given.get("subject_strategy", "topic"),
        register=given.get("register_schemas", True),
        for_key=for_key,
    )


def _schema_file(given: Settings, method: Method, key: str, root: Path) -> Path | None:
    if key not in given:
        return None
    path: Path = root / given[key]
    if not path.is_file():
        hint = "a relative path is relative to the project's folder"
        given.fail(f"`{key}` names no file: {path}", key, hint=hint, code="file.not_found")
    suffixes = _SUFFIXES.get(method, (".json",))
    if path.suffix not in suffixes:
        given.fail(f"`{key}` must be a file of type {' or '.join(suffixes)} for {method}, not {path.name}", key)
    return path


def _registry(given: Settings, context: StreamContext) -> RegistrySettings | None:
    username, token = (given.get(f"schema_registry_{name}") for name in ("username", "token"))
    given.refuse_both("schema_registry_username", "schema_registry_token")
    for name in ("password", "token"):
        if f"schema_registry_{name}" in given:
            context.secret(given[f"schema_registry_{name}"])
    if "schema_registry_password" in given and username is None:
        given.need("schema_registry_username", "its password is given")
    if "schema_registry_url" not in given:
        for name in ("username", "password", "token", "cafile"):
            if f"schema_registry_{name}" in given:
                given.fail(
                    f"`schema_registry_{name}` needs `schema_registry_url`", f"schema_registry_{name}", hint="add it"
                )
        return None
    urls = tuple(url.rstrip("/") for url in given["schema_registry_url"])
    for url in urls:
        if "@" in url:
            hint = "set `schema_registry_username` and `schema_registry_password`"
            given.fail("`schema_registry_url` must not hold a username or password", "schema_registry_url", hint=hint)
        if not url.startswith(("http://", "https://")):
            given.fail(f"`schema_registry_url` must begin with http:// or https://, not {url!r}", "schema_registry_url")
    cafile = given.get("schema_registry_cafile")
    if cafile is not None and not (context.root / cafile).is_file():
        given.fail(
            f"`schema_registry_cafile` names no file: {context.root / cafile}",
            "schema_registry_cafile",
            hint="a relative path is relative to the project's folder",
            code="file.not_found",
        )
    return RegistrySettings(
        urls=urls,
        username=username,
        password=given.get("schema_registry_password"),
        token=token,
        cafile=None if cafile is None else str(context.root / cafile),
    )
