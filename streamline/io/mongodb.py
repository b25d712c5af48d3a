"""MongoDB. Extra: `streamline[mongodb]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from streamline.errors import ConfigError
from streamline.io.base import BaseIO, ExportWritePolicy, check_policy, from_profile
from streamline.io.config import conceal
from streamline.io.frames import as_pandas
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "MongoDB"]

_NAMES = ("connection_string", "host", "port", "user", "password", "database", "collection")
_PROFILE = {name: f"MONGODB_{name.upper()}" for name in _NAMES}


class MongoDB(BaseIO):
    """A client of MongoDB.

    Profile keys: `MONGODB_CONNECTION_STRING`, or `_HOST`, `_PORT`, `_USER`, `_PASSWORD`; `_DATABASE`, `_COLLECTION`.

    Args:
        connection_string: `mongodb://…`.
        host: the server, without a connection string.
        port: the server's port.
        user: who connects.
        password: the user's password.
        database: the database.
        collection: the collection, unless `load` and `export` name another.
        verbose: accepted and not used.
        kwargs: further arguments of `pymongo.MongoClient`.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        host: str | None = None,
        port: int | str = 27017,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        collection: str | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(verbose)
        conceal({"password": password or "", "connection_string": connection_string or ""})
        pymongo = need("pymongo", "mongodb", "MongoDB")
        arguments = {} if connection_string else {"port": int(port), "username": user, "password": password}
        self.client = pymongo.MongoClient(connection_string or host, **arguments, **kwargs)
        self.database = self.client[database] if database else self.client.get_default_database()
        self.collection = collection

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> MongoDB:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})

    def load(
        self, collection: str | None = None, query: Mapping[str, Any] | None = None, limit: int = 0, **kwargs: Any
    ) -> pd.DataFrame:
        """Load the documents of a collection that a query of MongoDB finds; a `limit` of 0 is all of them."""
        return pd.DataFrame(self._collection(collection).find(query or {}, limit=limit, **kwargs))

    def export(
        self, data: Any, collection: str | None = None, if_exists: str = ExportWritePolicy.APPEND, **kwargs: Any
    ) -> None:
        """Write rows, or a list of dicts, as documents. `replace` deletes the documents of the collection first.

        Missing values are null; what a list of dicts has is written as it is.
        """
        if data is None:
            return
        policy = check_policy(if_exists)
        target = self._collection(collection)
        if isinstance(data, list):
            documents = [dict(row) for row in data]
        else:
            frame = as_pandas(data).astype(object)
            documents = frame.where(frame.notna(), None).to_dict("records")
        if policy == "replace":
            target.delete_many({})
        if documents:
            target.insert_many(documents)

    def _collection(self, name: str | None) -> Any:
        name = name or self.collection
        if not name:
            raise ConfigError(
                "MongoDB needs a collection",
                hint="pass collection=…, or set MONGODB_COLLECTION in the profile",
                code="export.no_table",
            )
        return self.database[name]
