"""Uses other names in `stream` than in `tap_stream_id`: `shop-public-orders` and `shop-public-users` are sent
as `orders` and `people`, and bookmarked by their ids.

Who: PipelineWise's tap-postgres and tap-mysql (`public-orders` ids, destination names in messages), every tap
with a `stream_alias`, SDK taps with stream maps.

Wanted: settings find a stream by either name; bookmarks are kept by `tap_stream_id`; nothing is sent twice.
"""

from __future__ import annotations

from _singer import Tap, stream


def main() -> None:
    """Send two streams under their aliases."""
    tap = Tap()
    tap.offer(
        *(
            stream(
                name,
                {"id": "integer", "text": "string"},
                replication_key="id",
                tap_stream_id=f"shop-public-{table}",
            )
            for name, table in (("orders", "orders"), ("people", "users"))
        )
    )
    bookmarks = dict(tap.saved.get("bookmarks") or {})
    for name, stream_id in (("orders", "shop-public-orders"), ("people", "shop-public-users")):
        if not tap.selected(name):
            continue
        tap.schema(name)
        start = tap.bookmark(stream_id).get("replication_key_value", 0)
        for n in range(start + 1, tap.config.get("rows", 20) + 1):
            tap.record(name, {"id": n, "text": f"{name} {n}"})
            bookmarks[stream_id] = {"replication_key": "id", "replication_key_value": n}
            if n % 10 == 0:
                tap.state({"bookmarks": bookmarks, "currently_syncing": stream_id})
    tap.state({"bookmarks": bookmarks, "currently_syncing": None})


main()
