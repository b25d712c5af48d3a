"""A sink of a streaming pipeline. Messages count as delivered when batch_write returns."""

import json
from pathlib import Path

from streamline.decorators import streaming_sink


@streaming_sink
class AppendOrders:
    def init_client(self):
        Path("output").mkdir(exist_ok=True)

    def batch_write(self, orders):
        with open("output/large_orders.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps(order) + "\n" for order in orders)
