"""Called with one batch of one stream at a time, while the records are on their way."""

import pandas as pd

from streamline.decorators import transformer


@transformer
def add_total(orders: pd.DataFrame, *args: object, **kwargs: object) -> pd.DataFrame:
    orders["total"] = orders["quantity"].astype("float64") * orders["unit_price"].astype("float64")
    return orders
