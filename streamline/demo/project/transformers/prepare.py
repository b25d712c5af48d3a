"""Transforms a batch of records of a stream before they are written."""

import pandas as pd

from streamline.decorators import transformer


@transformer
def prepare(rows: pd.DataFrame, *args, stream: str, **kwargs) -> pd.DataFrame:
    if stream == "customers":  # mask email addresses
        rows["email"] = rows["email"].str.replace(r"^.*@", "***@", regex=True)
    if stream == "order_lines":
        rows["total_cents"] = rows["quantity"] * rows["unit_cents"]
    return rows
