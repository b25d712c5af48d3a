"""A source of a streaming pipeline. This one makes 20 orders and ends; most have no end."""

import time

from streamline.decorators import streaming_source


@streaming_source
class StreamOrders:
    def batch_read(self, handler):
        done = self.position or 0  # what arrived everywhere in earlier runs
        for number in range(done + 1, done + 21):
            handler([{"id": number, "quantity": number % 5, "unit_price": 9.5}], position=number)
            time.sleep(0.1)
