"""Where finished files are put: a bucket, or a folder. A file is there whole, or not at all.

Files are written in a spool folder first. What a killed run left there, or in the middle of an upload, is removed when
the sink is opened again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from streamline.connectors.objects.settings import ObjectSettings
from streamline.errors import StreamlineError
from streamline.project.extras import need

_LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp"})
_DENIED = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"})


class StoreUnusable(StreamlineError):
    """Nothing can be written to the store, whatever it is."""

    code = "objects.not_usable"


class StoreDenied(StoreUnusable):
    """The credentials do not allow what was asked."""


class StoreAway(Exception):
    """The store does not take a file now."""


class Store(Protocol):
    """Where files are put."""

    spool: Path
    """Folder for files that are not complete."""

    def put(self, file: Path, key: str) -> None:
        """Move a file of the spool folder to a key below the base; it replaces one that is there.

        Raises:
            StoreAway: not now.
            StoreUnusable: never.
        """
        ...

    def clean(self) -> int:
        """Remove what a killed run left half done; return how many uploads these were.

        Raises:
            StoreAway, StoreUnusable: as `put`.
        """
        ...

    def look(self) -> str:
        """Return what is found at the base, in one line. Raises as `put`."""
        ...


def open_store(settings: ObjectSettings, tag: str, work: Path) -> Store:
    """Return the store of a sink.

    Args:
        tag: ends the names of its files, and of no other sink's.
        work: folder for files that are not complete, if they are not written beside their place.

    Raises:
        ConfigError: s3fs is not installed.
    """
    return Folder(settings, tag) if settings.bucket is None else Bucket(settings, tag, work)


class Folder:
    """Implements `Store`. The spool folder is below the base, so that a file gets its place by a rename."""

    def __init__(self, settings: ObjectSettings, tag: str) -> None:
        self._base = Path(settings.base)
        self.spool = self._base / f".streamline-{tag}"

    def put(self, file: Path, key: str) -> None:
        """See `Store.put`."""
        target = self._base / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(file)
            file.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise self._failure(error) from None

    def clean(self) -> int:
        """See `Store.clean`."""
        _empty(self.spool)
        return 0

    def look(self) -> str:
        """See `Store.look`."""
        if self._base.is_dir():
            if not os.access(self._base, os.W_OK):
                raise StoreUnusable("the folder cannot be written", where=str(self._base), hint="check its permissions")
            return f"{self._base} can be written"
        return f"{self._base} will be made"

    def _failure(self, error: OSError) -> Exception:
        if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError | FileNotFoundError):
            return StoreUnusable(str(error.strerror), where=str(error.filename or self._base), hint="check `url`")
        return StoreAway(error.strerror or str(error))


class Bucket:
    """Implements `Store`. Small files are put at once; of large ones the parts become a file when all are there."""

    def __init__(self, settings: ObjectSettings, tag: str, work: Path) -> None:
        self.spool = work / tag
        self._settings = settings
        self._tag = tag
        s3fs = need("s3fs", "s3", "an S3 sink")
        given = settings.connection
        self._files: Any = s3fs.S3FileSystem(
            key=given.get("aws_access_key_id"),
            secret=given.get("aws_secret_access_key"),
            token=given.get("aws_session_token"),
            endpoint_url=given.get("endpoint_url"),
            client_kwargs={"region_name": given["region_name"]} if "region_name" in given else {},
            anon=settings.anonymous,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def put(self, file: Path, key: str) -> None:
        """See `Store.put`."""
        path = "/".join(filter(None, (self._settings.bucket, self._settings.base, key)))
        self._asked(lambda: self._files.put_file(str(file), path))
        file.unlink()

    def clean(self) -> int:
        """See `Store.clean`."""
        _empty(self.spool)
        bucket, base = self._settings.bucket, self._settings.base
        place: dict[str, str] = {}
        aborted = 0
        while True:
            answer = self._asked(
                partial(self._files.call_s3, "list_multipart_uploads", Bucket=bucket, Prefix=base, **place)
            )
            for upload in answer.get("Uploads", ()):
                if upload["Key"].rpartition("/")[2].partition(".")[0].endswith(f"-{self._tag}"):
                    self._abort(upload)
                    aborted += 1
            if not answer.get("IsTruncated"):
                return aborted
            place = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def look(self) -> str:
        """See `Store.look`."""
        self._asked(lambda: self._files.call_s3("head_bucket", Bucket=self._settings.bucket))
        return f"{self._settings.address}: the bucket is there"

    def _abort(self, upload: Any) -> None:
        self._asked(
            lambda: self._files.call_s3(
                "abort_multipart_upload",
                Bucket=self._settings.bucket,
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            )
        )

    def _asked(self, call: Any) -> Any:
        where = self._settings.address
        try:
            return call()
        except FileNotFoundError:
            raise StoreUnusable("the bucket does not exist", where=where, hint="check `bucket`") from None
        except PermissionError as error:
            raise StoreDenied(f"access is denied ({error})", where=where, hint="check the credentials") from None
        except Exception as error:
            library = type(error).__module__.partition(".")[0] in _LIBRARIES
            if library and type(error).__name__ in _DENIED:
                raise StoreUnusable(str(error), where=where, hint="check the connection's settings") from None
            if library or isinstance(error, OSError | TimeoutError):
                raise StoreAway(str(error) or type(error).__name__) from None
            raise


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(
            f"the folder cannot be made: {error.strerror}", where=str(folder), hint="check `url`, and its permissions"
        ) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
