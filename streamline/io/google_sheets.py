"""Google Sheets. Extra: `streamline[google-sheets]`. Not tested against Google."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from streamline.io.base import BaseIO, ExportWritePolicy
from streamline.io.frames import as_pandas
from streamline.io.google_cloud_storage import google_settings
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "GoogleSheets"]


class GoogleSheets(BaseIO):
    """A client of Google Sheets.

    Args:
        verbose: accepted and not used.
        credentials_mapping: a service account's key.
        path_to_credentials: the file of a service account's key.
    """

    def __init__(
        self,
        verbose: bool = True,
        credentials_mapping: Mapping[str, Any] | None = None,
        path_to_credentials: str | None = None,
    ) -> None:
        super().__init__(verbose)
        gspread = need("gspread", "google-sheets", "GoogleSheets")
        if credentials_mapping:
            self.client = gspread.service_account_from_dict(dict(credentials_mapping))
        else:
            self.client = gspread.service_account(**({"filename": path_to_credentials} if path_to_credentials else {}))

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> GoogleSheets:
        """Connect by `GOOGLE_SERVICE_ACC_KEY` or `GOOGLE_SERVICE_ACC_KEY_FILEPATH`."""
        return cls(**{**google_settings(config), **kwargs})

    def load(
        self,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        worksheet_position: int = 0,
        worksheet_name: str | None = None,
        header_rows: int = 1,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Load the rows of a worksheet. With `header_rows=0` the columns are numbered."""
        rows = self._worksheet(sheet_url, sheet_id, worksheet_position, worksheet_name).get_all_values()
        names = rows[header_rows - 1] if header_rows and len(rows) >= header_rows else None
        frame = pd.DataFrame(rows[header_rows:], columns=names)
        return frame if limit is None else frame.head(limit)

    def export(
        self,
        df: Any,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        worksheet_position: int = 0,
        worksheet_name: str | None = None,
        if_exists: str = ExportWritePolicy.REPLACE,
    ) -> None:
        """Write a DataFrame with its header into a worksheet; `append` adds its rows below the others."""
        frame = as_pandas(df)
        rows = frame.astype(object).where(frame.notna(), "").map(_cell).to_numpy().tolist()
        sheet = self._worksheet(sheet_url, sheet_id, worksheet_position, worksheet_name)
        if if_exists == ExportWritePolicy.APPEND:
            sheet.append_rows(rows)
        else:
            sheet.clear()
            sheet.update([[str(name) for name in frame.columns], *rows])

    def _worksheet(self, url: str | None, key: str | None, position: int, name: str | None) -> Any:
        book = self.client.open_by_url(url) if url else self.client.open_by_key(key)
        return book.worksheet(name) if name else book.get_worksheet(position)


def _cell(value: Any) -> Any:
    """Return a value as JSON has it; anything else as text."""
    return value if isinstance(value, bool | int | float | str) else str(value)
