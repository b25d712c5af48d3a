"""In which form a source block's streams are handed to a function that asks for tables."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Library: TypeAlias = Literal["pandas", "polars", "pyarrow"]
Form: TypeAlias = Literal["single", "dict", "list", "any"]


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """What a function asks for.

    Args:
        library: of pandas or Polars DataFrames, of pyarrow Tables.
        form: one `single` table; a `dict` of tables by the streams' names; a `list` of them in the streams' order;
            `any`: one table for one stream, else a dict.
    """

    library: Library = "pandas"
    form: Form = "any"
