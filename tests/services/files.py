"""The shop as files and as a web service, for taps that read such things."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.services.seed import Table

PAGE_ROWS = 100


def csv_bytes(table: Table) -> bytes:
    """A CSV with a header; null is the empty text."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(table.kinds)
    writer.writerows(["" if v is None else _plain(v) for v in row.values()] for row in table.sorted_rows())
    return out.getvalue().encode()


def dbf_bytes(orders: Table) -> bytes:
    """Orders as a dBASE III file: ID, CUSTOMER (numbers), TOTAL (two decimals), PLACED_ON (a date)."""
    fields = [(b"ID", b"N", 10, 0), (b"CUSTOMER", b"N", 10, 0), (b"TOTAL", b"N", 12, 2), (b"PLACED_ON", b"D", 8, 0)]
    row_length = 1 + sum(length for _, _, length, _ in fields)
    header_length = 32 * (len(fields) + 1) + 1
    rows = orders.sorted_rows()
    parts = [struct.pack("<BBBBIHH20x", 3, 124, 1, 1, len(rows), header_length, row_length)]
    parts += [struct.pack("<11sc4xBB14x", *field) for field in fields]
    parts.append(b"\r")
    for row in rows:
        text = f" {row['id']:>10}{row['customer_id']:>10}{row['total']:>12.2f}{row['placed_on']:%Y%m%d}"
        parts.append(text.encode("ascii"))
    parts.append(b"\x1a")
    return b"".join(parts)


@dataclass
class Api:
    """A web service: `GET /TABLE?updated_since=T&page=N` gives `{data: […], next_page: N or null}`."""

    tables: dict[str, Table]
    port: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str) -> dict[str, Any]:
        """One page."""
        self.requests.append(path)
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        since, page = query.get("updated_since", ""), int(query.get("page", 1))
        rows = [{k: _plain(v) for k, v in row.items()} for row in self.tables[parts.path.strip("/")].sorted_rows()]
        rows = [row for row in rows if row["updated_at"] >= since]
        data = rows[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        return {"data": data, "next_page": page + 1 if page * PAGE_ROWS < len(rows) else None}


@contextlib.contextmanager
def serving(tables: Sequence[Table]) -> Iterator[Api]:
    """The web service for the length of the `with`."""
    api = Api({table.name: table for table in tables})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(api.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: the requests are kept in `api.requests`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
