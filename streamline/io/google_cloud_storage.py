"""Google Cloud Storage. Extra: `streamline[gcs]`. Written from gcsfs' documents; not tested against Google."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import profile_path, some
from streamline.io.formats import FileFormat
from streamline.io.object_store import BucketStore
from streamline.project.extras import need

__all__ = ["FileFormat", "GoogleCloudStorage"]


class GoogleCloudStorage(BucketStore):
    """Loads and exports DataFrames as objects in buckets. Untested against the service.

    Args:
        verbose: accepted and not used.
        settings: `credentials_mapping` (a service account's key as a mapping), `path_to_credentials` (its file) or
            `credentials` (an object of google-auth), and `project`; without them Google's default credentials
            (`GOOGLE_APPLICATION_CREDENTIALS`, …) are used. Others go to gcsfs, such as `endpoint_url`.
    """

    title = "Google Cloud Storage"

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> GoogleCloudStorage:
        """Connect by `GOOGLE_SERVICE_ACC_KEY`, `GOOGLE_SERVICE_ACC_KEY_FILEPATH`, or Google's default credentials.

        Args:
            config: a profile.
            kwargs: further arguments of the constructor; they win.
        """
        return cls(**{**google_settings(config), **kwargs})

    def _connect(self) -> Any:
        gcsfs = need("gcsfs", "gcs", "GoogleCloudStorage")
        rest = dict(self.settings)
        credentials = [rest.pop(key, None) for key in ("credentials", "credentials_mapping", "path_to_credentials")]
        token = next((each for each in credentials if each), None)
        token = dict(token) if isinstance(token, Mapping) else token
        return gcsfs.GCSFileSystem(**some({"token": token} | rest), skip_instance_cache=True, use_listings_cache=False)


def google_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile's credentials for Google: `credentials_mapping` or `path_to_credentials`, or nothing."""
    mapping = config.get("GOOGLE_SERVICE_ACC_KEY")
    if mapping:
        return {"credentials_mapping": mapping}
    path = profile_path(config, "GOOGLE_SERVICE_ACC_KEY_FILEPATH")
    return {"path_to_credentials": path} if path else {}
