"""Amazon S3, and stores that speak its protocol. Extra: `streamline[s3]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamline.io.base import from_profile, some
from streamline.io.formats import FileFormat
from streamline.io.object_store import BucketStore
from streamline.project.extras import need

__all__ = ["S3", "FileFormat"]

_PROFILE = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "region_name": "AWS_REGION",
    "endpoint_url": "AWS_ENDPOINT",
}


class S3(BucketStore):
    """Loads and exports DataFrames as objects in buckets.

    Args:
        verbose: accepted and not used.
        settings: as boto3's client takes them: `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`,
            `region_name`, `endpoint_url`, `use_ssl`, `verify`. What is left out comes from where AWS's own tools look
            for it. `anon=True` asks without credentials.
    """

    title = "S3"

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> S3:
        """By the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT`.

        Args:
            config: a profile.
            kwargs: further arguments of the constructor; they win.
        """
        return cls(**{**from_profile(config, _PROFILE), **kwargs})

    @property
    def client(self) -> Any:
        """A client of AWS's own library, boto3 where it is installed, else botocore."""
        import importlib.util

        settings = {key: value for key, value in self.settings.items() if key != "anon"}
        if importlib.util.find_spec("boto3") is not None:
            return need("boto3", "pip:boto3", "S3.client").client("s3", **settings)
        session = need("botocore.session", "s3", "S3.client").get_session()
        return session.create_client("s3", **settings)

    def _connect(self) -> Any:
        s3fs = need("s3fs", "s3", "S3")
        rest = dict(self.settings)
        named = {
            "key": rest.pop("aws_access_key_id", None),
            "secret": rest.pop("aws_secret_access_key", None),
            "token": rest.pop("aws_session_token", None),
            "endpoint_url": rest.pop("endpoint_url", None),
            "use_ssl": rest.pop("use_ssl", None),
            "anon": rest.pop("anon", None),
        }
        # Objects change behind our back: what was listed once is not to be believed the next time.
        return s3fs.S3FileSystem(
            **some(named), client_kwargs=some(rest), skip_instance_cache=True, use_listings_cache=False
        )
