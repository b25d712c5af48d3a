"""Loads all orders at once. A batch pipeline hands on what a block returns; here a DataFrame."""

import pandas as pd

from streamline.decorators import data_loader, test


@data_loader
def load_orders(*args, **kwargs) -> pd.DataFrame:
    return pd.read_csv("data/orders.csv", parse_dates=["ordered_at"])


@test
def has_all_columns(orders: pd.DataFrame, *args) -> None:
    assert {"customer", "quantity", "unit_price"} <= set(orders.columns)
