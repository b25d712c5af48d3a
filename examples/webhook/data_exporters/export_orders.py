from pathlib import Path

from streamline.decorators import data_exporter


@data_exporter
def export_orders(orders, *args, **kwargs):
    # Fails where the variable names a folder that is not there: `--runtime-vars folder=nowhere` shows the callback.
    orders.to_csv(Path(kwargs.get("folder", ".")) / "orders.csv", index=False)
