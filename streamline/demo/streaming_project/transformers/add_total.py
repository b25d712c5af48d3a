from streamline.decorators import transformer


@transformer
def add_total(orders: list[dict], *args, **kwargs) -> list[dict]:
    for order in orders:
        order["total"] = order["quantity"] * order["price"]
    return orders
