"""A transformer of a streaming pipeline. Called with some messages at a time; what is not returned is dropped."""

from streamline.decorators import transformer


@transformer
def large_orders(orders: list[dict], *args, **kwargs) -> list[dict]:
    for order in orders:
        order["total"] = order["quantity"] * order["unit_price"]
    return [order for order in orders if order["total"] >= 38]
