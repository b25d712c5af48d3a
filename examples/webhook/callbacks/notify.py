"""Posts to a webhook when a run has failed: WEBHOOK_URL, in the form that chat services take."""

import json
import os
import urllib.request

from streamline.decorators import callback


@callback("failure")
def notify(*args, **kwargs):
    blocks = ", ".join(kwargs["failed_blocks"])
    text = f"{kwargs['pipeline_uuid']} failed: {blocks} ({kwargs['__error']}), run {kwargs['run_id']}"
    request = urllib.request.Request(
        os.environ["WEBHOOK_URL"],
        data=json.dumps({"text": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()
