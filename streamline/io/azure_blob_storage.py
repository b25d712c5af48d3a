"""Azure Blob Storage. Extra: `streamline[azure]`. Written from adlfs' documents; not tested against Azure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamline.io.base import from_profile, require_key, some
from streamline.io.formats import FileFormat
from streamline.io.object_store import ObjectStore
from streamline.project.extras import need

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AzureBlobStorage", "FileFormat"]

_PROFILE = {
    "storage_account_name": "AZURE_STORAGE_ACCOUNT_NAME",
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
}


class AzureBlobStorage(ObjectStore):
    """Loads and exports DataFrames as blobs in containers. Untested against the service.

    Args:
        verbose: accepted and not used.
        settings: `storage_account_name`, and `tenant_id`, `client_id`, `client_secret` of a service principal (also
            under the profile's keys); or `account_key`, `sas_token`, `connection_string`, `credential`. Without any,
            Azure's default credentials are used. Others go to adlfs.
    """

    title = "Azure Blob Storage"

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> AzureBlobStorage:
        """Connect by `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`.

        Args:
            config: a profile.
            kwargs: further arguments of the constructor; they win.

        Raises:
            ConfigError: the profile has no `AZURE_STORAGE_ACCOUNT_NAME`.
        """
        if "storage_account_name" not in kwargs and "connection_string" not in kwargs:
            require_key(config, "AZURE_STORAGE_ACCOUNT_NAME", cls.title)
        return cls(**{**from_profile(config, _PROFILE), **kwargs})

    def load(
        self,
        container_name: str,
        blob_path: str,
        format: FileFormat | str | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Load the rows of a blob; arguments and errors as of `S3.load`."""
        return self._load(container_name, blob_path, format, limit, kwargs)

    def export(
        self,
        df: Any,
        container_name: str,
        blob_path: str,
        format: FileFormat | str | None = None,
        *,
        upload_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a blob; arguments as of `S3.export`.

        Args:
            df: a DataFrame, or the path of a file to upload as it is.
            container_name: the container; it has to be there.
            blob_path: the blob.
            format: as for `load`.
            upload_kwargs: `overwrite=False` leaves a blob that is there alone, and fails. Others go to the upload.
            kwargs: arguments of pandas' writer.

        Raises:
            FileExistsError: the blob is there, and `overwrite` is False.
        """
        upload = dict(upload_kwargs or {})
        if not upload.setdefault("overwrite", True) and self._file_there(container_name, blob_path):
            raise FileExistsError(f"{self.title}: there is a blob '{blob_path}' in '{container_name}' already")
        self._export(df, container_name, blob_path, format, kwargs, **upload)

    def exists(self, container_name: str, prefix: str) -> bool:
        """Return whether there is a blob whose path is `prefix`, or begins with it."""
        return self._exists(container_name, prefix)

    def _file_there(self, container: str, path: str) -> bool:
        return bool(self.file_system.isfile(f"{container}/{path.lstrip('/')}"))

    def _connect(self) -> Any:
        adlfs = need("adlfs", "azure", "AzureBlobStorage")
        rest = dict(self.settings)
        named = {
            "account_name": rest.pop("storage_account_name", None),
            "tenant_id": rest.pop("AZURE_TENANT_ID", None),
            "client_id": rest.pop("AZURE_CLIENT_ID", None),
            "client_secret": rest.pop("AZURE_CLIENT_SECRET", None),
            # without `anon`, adlfs connects anonymously where no credential is given.
            "anon": False,
        }
        settings = some(named) | some(rest)
        return adlfs.AzureBlobFileSystem(**settings, skip_instance_cache=True, use_listings_cache=False)
