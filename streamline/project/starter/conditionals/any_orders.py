"""Decides whether the report is written; it is given what the block that it gates is given."""

import pandas as pd

from streamline.decorators import condition


@condition
def any_orders(totals: pd.DataFrame, *args, **kwargs) -> bool:
    return len(totals) >= kwargs["at_least"]
