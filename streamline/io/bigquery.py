"""BigQuery. Extra: `streamline[bigquery]`. Written from its client's documents; not tested against Google."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.io.base import ExportWritePolicy, check_policy, table_and_size
from streamline.io.frames import as_pandas
from streamline.io.google_cloud_storage import google_settings
from streamline.io.sql import clean_query
from streamline.io.warehouse import StatementWarehouse, merge_statement, without_repeated_keys
from streamline.project.extras import need

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BigQuery", "ExportWritePolicy"]

_SCOPES = ["https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/drive"]
_DISPOSITIONS = {"append": "WRITE_APPEND", "replace": "WRITE_TRUNCATE", "fail": "WRITE_EMPTY"}


class BigQuery(StatementWarehouse):
    """A client of BigQuery. Untested against the service.

    Args:
        verbose: accepted and not used.
        settings: `credentials_mapping` (a service account's key as a mapping), `path_to_credentials` (its file) or
            `credentials` (an object of google-auth); without them Google's default credentials are used. Others, such
            as `project` and `location`, go to `google.cloud.bigquery.Client`.
    """

    title = "BigQuery"
    client_module = ("google.api_core.exceptions", "bigquery", "google-api-core")
    client_error = "GoogleAPIError"

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> BigQuery:
        """Connect by `GOOGLE_SERVICE_ACC_KEY` or `GOOGLE_SERVICE_ACC_KEY_FILEPATH`, and `GOOGLE_LOCATION`.

        Args:
            config: a profile.
            kwargs: further arguments of the constructor; they win.
        """
        settings = google_settings(config)
        location = config.get("GOOGLE_LOCATION")
        if location:
            settings["location"] = location
        return cls(**{**settings, **kwargs})

    @classmethod
    def with_credentials_file(cls, path_to_credentials: str, **kwargs: Any) -> BigQuery:
        """Connect with the file of a service account's key."""
        return cls(path_to_credentials=path_to_credentials, **kwargs)

    @classmethod
    def with_credentials_object(cls, credentials: Mapping[str, Any], **kwargs: Any) -> BigQuery:
        """Connect with a service account's key."""
        return cls(credentials_mapping=credentials, **kwargs)

    @property
    def client(self) -> Any:
        """Return the `google.cloud.bigquery.Client`."""
        return self.conn

    def default_database(self) -> str:
        """Return the client's project."""
        return str(self.client.project)

    def commit(self) -> None:
        """Do nothing: every statement stands for itself."""

    def rollback(self) -> None:
        """Do nothing: every statement stands for itself."""

    def table_exists(self, schema_name: str | None, table_name: str, database: str | None = None) -> bool:
        """Return whether the table or view exists in the dataset `schema_name`."""
        project, dataset, table = self._parts(f"{schema_name}.{table_name}" if schema_name else table_name, database)
        with self._errors():
            return self._exists(f"{project}.{dataset}.{table}")

    def sample(self, schema: str, table: str | int, size: int | str = 10_000_000, **kwargs: Any) -> pd.DataFrame:
        """Load some rows of a table of the dataset `schema`, in no order. `table` and `size` may change places."""
        table, size = table_and_size(table, size)
        return self.load(f"SELECT * FROM `{schema}`.`{table}`", limit=size, **kwargs)

    def export(
        self,
        df: Any,
        table_id: str | None = None,
        database: str | None = None,
        if_exists: str = ExportWritePolicy.REPLACE,
        overwrite_types: Mapping[str, str] | None = None,
        query_string: str | None = None,
        verbose: bool = True,
        unique_conflict_method: str | None = None,
        unique_constraints: Sequence[str] | None = None,
        write_disposition: str | None = None,
        create_dataset: bool = True,
        **configuration_params: Any,
    ) -> None:
        """Write a DataFrame into a table, made where there is none: all of it, or nothing.

        Args:
            df: a DataFrame as `BaseSQL.export` takes it. Spaces in column names become `_`.
            table_id: `dataset.table`, or `project.dataset.table`.
            database: the project; by default the one in `table_id`, else the client's.
            if_exists: `replace`, `append`, `fail` (a table without rows may be there).
            overwrite_types: BigQuery's types of columns, by their names.
            query_string: a SELECT that is written in place of `df`.
            verbose: accepted and not used.
            unique_conflict_method: `UPDATE` or `IGNORE`; appended rows are merged by `unique_constraints`.
            unique_constraints: columns that tell rows apart.
            write_disposition: BigQuery's own word for `if_exists`; it wins.
            create_dataset: make the dataset where there is none.
            configuration_params: further attributes of the `LoadJobConfig`.

        Raises:
            ConfigError: the table is not named so.
            DatabaseError: BigQuery refuses.
        """
        disposition = write_disposition or _DISPOSITIONS[check_policy(if_exists)]
        project, dataset, table = self._parts(table_id, database)
        target = f"{project}.{dataset}.{table}"
        bigquery = self._module
        with self._errors():
            if create_dataset:
                self._ensure_dataset(f"{project}.{dataset}")
            if query_string is not None:
                config = bigquery.QueryJobConfig(destination=target, write_disposition=disposition)
                self.client.query(clean_query(query_string), job_config=config).result()
                return
            frame = as_pandas(df)
            frame = frame.rename(columns=lambda name: str(name).replace(" ", "_"))
            merge = bool(unique_constraints and unique_conflict_method)
            key = [name.replace(" ", "_") for name in unique_constraints or ()]
            if merge:
                frame = without_repeated_keys(frame, key, str(unique_conflict_method))
            fields = [bigquery.SchemaField(name, kind) for name, kind in (overwrite_types or {}).items()]
            options = ({"schema": fields} if fields else {}) | configuration_params
            if merge and disposition == "WRITE_APPEND" and self._exists(target):
                self._merge(frame, target, key, str(unique_conflict_method), options)
            else:
                self._load_frame(frame, target, disposition, options)

    @property
    def _module(self) -> Any:
        return need("google.cloud.bigquery", "bigquery", "BigQuery", package="google-cloud-bigquery")

    def _connect(self) -> Any:
        bigquery = self._module
        settings = dict(self.settings)
        mapping, path = settings.pop("credentials_mapping", None), settings.pop("path_to_credentials", None)
        if settings.get("credentials") is None and (mapping or path):
            accounts = need("google.oauth2.service_account", "bigquery", "BigQuery", package="google-auth")
            settings["credentials"] = (
                accounts.Credentials.from_service_account_info(dict(mapping), scopes=_SCOPES)
                if mapping
                else accounts.Credentials.from_service_account_file(str(path), scopes=_SCOPES)
            )
            # The default project is that of the default credentials, which may be other ones.
            settings.setdefault("project", settings["credentials"].project_id)
        return bigquery.Client(**settings)

    def _fetch(self, query: str, options: Mapping[str, Any]) -> pd.DataFrame:
        frame: pd.DataFrame = self.client.query(query, **options).to_dataframe()
        return frame

    def _run(self, query: str, options: Mapping[str, Any]) -> Any:
        return self.client.query(query, **options).result()

    def _parts(self, table_id: str | None, database: str | None) -> tuple[str, str, str]:
        parts = (table_id or "").replace("`", "").split(".")
        if len(parts) == 2:
            parts.insert(0, database or self.default_database())
        if len(parts) != 3 or not all(parts):
            raise ConfigError(
                f"invalid table_id {table_id!r}",
                hint="write 'dataset.table' or 'project.dataset.table'",
                code="export.invalid_table_id",
            )
        return database or parts[0], parts[1], parts[2]

    def _ensure_dataset(self, dataset: str) -> None:
        try:
            self.client.get_dataset(dataset)
        except self._client_errors.NotFound:
            self.client.create_dataset(dataset, exists_ok=True)

    def _exists(self, table: str) -> bool:
        try:
            self.client.get_table(table)
        except self._client_errors.NotFound:
            return False
        return True

    def _load_frame(self, frame: pd.DataFrame, table: str, disposition: str, options: Mapping[str, Any]) -> None:
        config = self._module.LoadJobConfig(**{"write_disposition": disposition, **options})
        self.client.load_table_from_dataframe(frame, table, job_config=config).result()

    def _merge(self, frame: pd.DataFrame, table: str, key: list[str], method: str, options: Mapping[str, Any]) -> None:
        staged = f"{table}_{secrets.token_hex(6)}"
        try:
            self._load_frame(frame, staged, "WRITE_TRUNCATE", options)
            columns, keys = [f"`{name}`" for name in frame.columns], [f"`{name}`" for name in key]
            self.client.query(merge_statement(f"`{table}`", f"`{staged}`", columns, keys, method)).result()
        finally:
            with contextlib.suppress(Exception):
                self.client.delete_table(staged, not_found_ok=True)
