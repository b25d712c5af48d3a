"""Small helpers of Mage that block files borrow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

T = TypeVar("T")
K = TypeVar("K")

_INDEX = re.compile(r"(.*)\[(\d+)\]")


# --- hash


def dig(obj: Any, path: str | Sequence[str]) -> Any:
    """Return the value at a path such as `user.tags[0].name`; None where a mapping lacks a key or is empty."""
    for key in path.split(".") if isinstance(path, str) else path:
        match = _INDEX.fullmatch(key.strip())
        name, index = (match[1], int(match[2])) if match else (key.strip(), None)
        if name:
            if index is None and not obj:
                return obj
            obj = obj.get(name) if index is None else obj[name]
        if index is not None:
            obj = obj[index]
    return obj


def extract(mapping: Mapping[str, Any], keys: Iterable[str], include_blank_values: bool = False) -> dict[str, Any]:
    """Return these keys only, without those that are missing or None unless blank ones are wanted too."""
    return {key: mapping.get(key) for key in keys if include_blank_values or mapping.get(key) is not None}


def flatten_dict(mapping: Mapping[str, Any], parent_key: str = "", sep: str = ".") -> dict[str, Any]:
    """Flatten nested mappings, with keys joined by `sep`."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{parent_key}{sep}{key}" if parent_key else key
        flat |= flatten_dict(value, name, sep) if isinstance(value, dict) else {name: value}
    return flat


def get_json_value(text: str | None, path: str | Sequence[str]) -> Any:
    """Return the value at a path in a JSON text; the text itself if it is not JSON."""
    if not text:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return dig(value, path)


def group_by(function: Callable[[T], K], items: Iterable[T]) -> dict[K, list[T]]:
    """Group the items by the function's result, in their order."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(function(item), []).append(item)
    return groups


def ignore_keys(mapping: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a copy without these keys."""
    left_out = set(keys)
    return {key: value for key, value in mapping.items() if key not in left_out}


def ignore_keys_with_blank_values(mapping: Mapping[str, Any], include_values: Sequence[Any] = ()) -> dict[str, Any]:
    """Return a copy without the keys whose value is empty, 0, False or None, unless `include_values` lists it."""
    return {key: value for key, value in mapping.items() if value or value in (include_values or ())}


def index_by(function: Callable[[T], K], items: Iterable[T]) -> dict[K, T]:
    """Index the items by the function's result; the last one wins."""
    return {function(item): item for item in items}


def merge_dict(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge two mappings; the second one's values win."""
    return {**(first or {}), **(second or {})}


# --- array


def batch(items: Sequence[T], n: int = 1) -> Iterator[Sequence[T]]:
    """Yield slices of `n` items; the last may be shorter."""
    for start in range(0, len(items), n):
        yield items[start : start + n]


def difference(first: Iterable[T], second: Iterable[T]) -> list[T]:
    """Return the items that are in only one of the two."""
    left, right = list(first), list(second)
    return [item for item in left if item not in right] + [item for item in right if item not in left]


def find(condition: Callable[[T], Any], items: Iterable[T], map: Callable[[T], Any] | None = None) -> Any:
    """Return the first item that meets the condition, through `map` if given; None if there is none."""
    for item in items:
        if condition(item):
            return item if map is None else map(item)
    return None


def find_index(condition: Callable[[T], Any], items: Iterable[T]) -> int:
    """Return the index of the first item that meets the condition; -1 if there is none."""
    return next((index for index, item in enumerate(items) if condition(item)), -1)


def flatten(items: Iterable[Iterable[T]]) -> list[T]:
    """Flatten the items by one level."""
    return list(chain.from_iterable(items))


def unique_by(items: Iterable[T], key: Callable[[T], Any]) -> list[T]:
    """Drop the items whose key came before."""
    return list({key(item): item for item in reversed(list(items))}.values())[::-1]


# --- strings and names


def camel_to_snake_case(name: str) -> str:
    """Return a name in snake case: `tapStreamId` → `tap_stream_id`."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", apart).lower()


def is_number(text: Any) -> bool:
    """Return whether `float` can read it."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def clean_name(
    name: str,
    allow_characters: Sequence[str] | None = None,
    allow_number: bool = False,
    case_sensitive: bool = False,
) -> str:
    """Return a name for pipelines, blocks and columns: letters, digits and `_`.

    Args:
        allow_characters: further characters that may stay.
        allow_number: whether it may begin with a digit; else `letter_` is put before it.
        case_sensitive: whether capitals stay.
    """
    kept = "".join(map(re.escape, allow_characters or ()))
    cleaned = re.sub(rf"[^\w{kept}]", "_", re.sub('[\ufeff"$\n\r\t]', "", name))
    if cleaned[:1].isdigit() and not allow_number:
        cleaned = f"letter_{cleaned}"
    return cleaned if case_sensitive else cleaned.lower()


# --- environments


def get_env() -> str:
    """Return `$ENV` by its short name: dev, test, staging or prod."""
    env = os.environ.get("ENV") or "dev"
    return {"production": "prod", "development": "dev"}.get(env, env)


def is_debug() -> bool:
    """Return whether `$DEBUG` is 1."""
    return os.environ.get("DEBUG") == "1"


def is_dev() -> bool:
    """Return whether `$ENV` says dev."""
    return os.environ.get("ENV") in ("dev", "development")


def is_prod() -> bool:
    """Return whether `$ENV` says prod."""
    return os.environ.get("ENV") in ("prod", "production")


def is_test() -> bool:
    """Return whether `$ENV` says test."""
    return os.environ.get("ENV") == "test"


# --- parsers


def convert_matrix_to_dataframe(csr_matrix: Any) -> Any:
    """Return a DataFrame of a sparse matrix of SciPy, with columns `0`, `1`, …; anything else as it is."""
    if type(csr_matrix).__name__ != "csr_matrix":
        return csr_matrix
    import pandas as pd

    return pd.DataFrame(csr_matrix.toarray(), columns=[str(number) for number in range(csr_matrix.shape[1])])
