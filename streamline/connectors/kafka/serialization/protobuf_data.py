"""Protobuf messages as Python data, and back. Nothing here imports Protobuf: messages bring their descriptors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from streamline.connectors.kafka.serialization.base import UnwritableError

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
# Numbers of FieldDescriptor's types.
_ENUM, _BOOL, _STRING, _BYTES = 14, 8, 9, 12
_FLOATS = (1, 2)


def to_data(message: Any) -> Any:
    """Return a message as a dictionary of the fields that are set; those without presence have their default."""
    special = _READERS.get(message.DESCRIPTOR.full_name)
    if special is not None:
        return special(message)
    data = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence:
            if message.HasField(field.name):
                data[field.name] = _value(field, getattr(message, field.name))
            continue
        value = getattr(message, field.name)
        if _is_map(field):
            inner = field.message_type.fields_by_name["value"]
            data[field.name] = {key: _value(inner, value[key]) for key in value}
        elif _is_repeated(field):
            data[field.name] = [_value(field, item) for item in value]
        else:
            data[field.name] = _value(field, value)
    return data


def fill(message: Any, data: Any) -> None:
    """Set a message's fields from data: a dictionary by the names of the schema, or their camel-case form.

    Raises:
        UnwritableError: the data has a field that the message does not have, or a value that does not fit.
    """
    special = _WRITERS.get(message.DESCRIPTOR.full_name)
    if special is not None:
        try:
            special(message, data)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnwritableError(f"{message.DESCRIPTOR.full_name} cannot be {_shown(data)}: {error}") from None
        return
    if not isinstance(data, Mapping):
        raise UnwritableError(f"{message.DESCRIPTOR.full_name} cannot be {_shown(data)}: it must be a dictionary")
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in data.items():
        field = fields.get(name) or message.DESCRIPTOR.fields_by_camelcase_name.get(name)
        if field is None:
            raise UnwritableError(f"{message.DESCRIPTOR.full_name} has no field {name!r}")
        if value is None:
            continue
        try:
            _set(message, field, value)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, UnwritableError):
                raise
            raise UnwritableError(f"{field.full_name} cannot be {_shown(value)}: {error}") from None


def _set(message: Any, field: Any, value: Any) -> None:
    target = getattr(message, field.name)
    if _is_map(field):
        inner = field.message_type.fields_by_name["value"]
        for key, item in value.items():
            if inner.message_type is not None:
                target[key].SetInParent()
                fill(target[key], item)
            else:
                target[key] = _scalar(inner, item)
    elif _is_repeated(field):
        if isinstance(value, str | bytes | Mapping):
            raise TypeError("it must be a list")
        for item in value:
            if field.message_type is not None:
                fill(target.add(), item)
            else:
                target.append(_scalar(field, item))
    elif field.message_type is not None:
        target.SetInParent()
        fill(target, value)
    else:
        setattr(message, field.name, _scalar(field, value))


def _scalar(field: Any, value: Any) -> Any:
    if field.type == _ENUM and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise ValueError(f"{field.enum_type.full_name} has no value of this name")
        return field.enum_type.values_by_name[value].number
    if field.type in (_BOOL, _STRING, _BYTES) or field.type in _FLOATS:
        wanted: Any = {_BOOL: bool, _STRING: str, _BYTES: bytes}.get(field.type, (int, float))
        if not isinstance(value, wanted) or (wanted == (int, float) and isinstance(value, bool)):
            raise TypeError("it is of another type")
    elif isinstance(value, bool | float):
        raise TypeError("it must be a whole number")
    return value


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_data(value)
    if field.type == _ENUM:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # older versions of Protobuf have `label` alone
    return bool(field.label == 3 if repeated is None else repeated)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


# --- types that Protobuf defines


def _read_timestamp(message: Any) -> Any:
    try:
        return _EPOCH + dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        return {"seconds": message.seconds, "nanos": message.nanos}


def _write_timestamp(message: Any, data: Any) -> None:
    if isinstance(data, str):
        data = dt.datetime.fromisoformat(data)
    if isinstance(data, Mapping):
        message.seconds, message.nanos = data["seconds"], data.get("nanos", 0)
        return
    if data.tzinfo is None:
        raise ValueError("it needs an offset from UTC")
    _write_duration(message, data - _EPOCH)


def _read_duration(message: Any) -> Any:
    try:
        return dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        return {"seconds": message.seconds, "nanos": message.nanos}


def _write_duration(message: Any, data: Any) -> None:
    if isinstance(data, Mapping):
        message.seconds, message.nanos = data["seconds"], data.get("nanos", 0)
        return
    microseconds = data // dt.timedelta(microseconds=1)
    sign = -1 if microseconds < 0 and message.DESCRIPTOR.name == "Duration" else 1
    seconds, rest = divmod(microseconds * sign, 1_000_000)
    message.seconds, message.nanos = seconds * sign, rest * 1000 * sign
    message.SetInParent()


def _read_wrapper(message: Any) -> Any:
    return message.value


def _write_wrapper(message: Any, data: Any) -> None:
    message.value = _scalar(message.DESCRIPTOR.fields_by_name["value"], data)


def _read_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    value = getattr(message, kind)
    return to_data(value) if kind in ("struct_value", "list_value") else value


def _write_value(message: Any, data: Any) -> None:
    if data is None:
        message.null_value = 0
    elif isinstance(data, bool):
        message.bool_value = data
    elif isinstance(data, int | float):
        message.number_value = data
    elif isinstance(data, str):
        message.string_value = data
    elif isinstance(data, Mapping):
        message.struct_value.SetInParent()
        fill(message.struct_value, data)
    else:
        message.list_value.SetInParent()
        fill(message.list_value, data)


def _read_struct(message: Any) -> Any:
    return {key: _read_value(message.fields[key]) for key in message.fields}


def _write_struct(message: Any, data: Any) -> None:
    for key, value in data.items():
        _write_value(message.fields[key], value)


def _read_list(message: Any) -> Any:
    return list(map(_read_value, message.values))


def _write_list(message: Any, data: Any) -> None:
    for item in data:
        _write_value(message.values.add(), item)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_WRAPPERS, _read_wrapper),
    "google.protobuf.Timestamp": _read_timestamp,
    "google.protobuf.Duration": _read_duration,
    "google.protobuf.Value": _read_value,
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.ListValue": _read_list,
}
_WRITERS: Mapping[str, Callable[[Any, Any], None]] = {
    **dict.fromkeys(_WRAPPERS, _write_wrapper),
    "google.protobuf.Timestamp": _write_timestamp,
    "google.protobuf.Duration": _write_duration,
    "google.protobuf.Value": _write_value,
    "google.protobuf.Struct": _write_struct,
    "google.protobuf.ListValue": _write_list,
}
