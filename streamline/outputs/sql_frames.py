"""Tables that no pandas frame was made into, such as the results of SQL, as pandas frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def as_pandas(table: pa.Table) -> Any:
    """The table as pandas would read it, except that integers beside NULLs stay integers (`Int64`): as floats, large
    ones would be rounded. Who wrote it from pandas has said in its metadata what it was.
    """
    import json

    import pyarrow as pa

    described = table.schema.metadata or {}
    if b"pandas" not in described:
        columns = [
            {
                "name": field.name,
                "field_name": field.name,
                "pandas_type": str(field.type),
                "numpy_type": str(field.type).replace("uint", "UInt").replace("int", "Int"),
                "metadata": None,
            }
            for index, field in enumerate(table.schema)
            if pa.types.is_integer(field.type) and table.column(index).null_count
        ]
        if columns:
            told = {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
            table = table.replace_schema_metadata({**described, b"pandas": json.dumps(told).encode()})
    # The same inside of structs and lists, where pandas has no types of its own.
    return table.to_pandas(integer_object_nulls=True)
