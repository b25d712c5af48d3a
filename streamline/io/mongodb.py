"""MongoDB. Extra: `streamline[mongodb]`. Not tested against the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

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
    ) -> None:
        super().__init__(verbose)
        conceal({"password": password or "", "connection_string": connection_string or ""})
        pymongo = need("pymongo", "mongodb", "MongoDB")
        arguments = {} if connection_string else {"port": int(port), "username": user, "password": password}
        self.client = pymongo.MongoClient(connection_string or host, **arguments)
        self.database = self.client[database] if database else self.client.get_default_database()
        self.collection = collection

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> MongoDB:
        """Connect by a profile's keys."""
        return cls(**{**from_profile(config, _PROFILE), **kwargs})

    def load(
        self, query: Mapping[str, Any] | None = None, collection: str | None = None, limit: int = 0, **kwargs: Any
    ) -> pd.DataFrame:
        """Load the documents that a query of MongoDB finds; a `limit` of 0 is all of them."""
        return pd.DataFrame(self.database[collection or self.collection].find(query or {}, limit=limit, **kwargs))

    def export(
        self, df: Any, collection: str | None = None, if_exists: str = ExportWritePolicy.APPEND, **kwargs: Any
    ) -> None:
        """Write rows as documents. `replace` deletes the documents of the collection first."""
        policy = check_policy(if_exists)
        target = self.database[collection or self.collection]
        if policy == "replace":
            target.delete_many({})
        documents = as_pandas(df).to_dict("records")
        if documents:
            target.insert_many(documents)
