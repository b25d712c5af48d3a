"""The projects in examples/ do what they say."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from pathlib import Path

from tests.support.batch import BatchProject
from tests.support.project import REPOSITORY


def test_a_failure_posts_to_a_webhook(tmp_path: Path) -> None:
    posted: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    project = BatchProject(tmp_path / "copy")
    shutil.copytree(REPOSITORY / "examples" / "webhook", project.root, dirs_exist_ok=True)
    env = {"WEBHOOK_URL": f"http://127.0.0.1:{server.server_address[1]}/"}
    try:
        project.run(pipeline="nightly", env=env).expect(0)
        assert posted == []
        completed = project.command("run", "nightly", "--runtime-vars", "folder=nowhere", env=env)
        assert completed.code == 1, completed
        (text,) = posted
        assert text.startswith("nightly failed: export_orders (OSError: Cannot save file into a non-existent directory")
        server.shutdown()
        server.server_close()
        completed = project.command("run", "nightly", "--runtime-vars", "folder=nowhere", env=env)
        assert completed.code == 1
        assert "the callback 'notify' failed in notify()" in completed.err
    finally:
        server.server_close()
        project.close()
