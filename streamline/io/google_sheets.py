"""Google Sheets. Extra: `streamline[google-sheets]`. Not tested against Google."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from streamline.errors import ConfigError
from streamline.io.base import BaseIO, ExportWritePolicy
from streamline.io.frames import as_pandas
from streamline.io.google_cloud_storage import google_settings
from streamline.project.extras import need

__all__ = ["ExportWritePolicy", "GoogleSheets"]


class GoogleSheets(BaseIO):
    """A client of Google Sheets.

    A sheet is named by its URL, its id or its title (`sheet_name`), a worksheet in it by its title or its position.

    Args:
        verbose: accepted and not used.
        credentials_mapping: a service account's key.
        path_to_credentials: the file of a service account's key.
        credentials: an object of google-auth.
        kwargs: further arguments of `gspread.authorize`, which takes `credentials`.
    """

    def __init__(
        self,
        verbose: bool = True,
        credentials_mapping: Mapping[str, Any] | None = None,
        path_to_credentials: str | None = None,
        credentials: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(verbose)
        gspread = need("gspread", "google-sheets", "GoogleSheets")
        if credentials is not None:
            self.client = gspread.authorize(credentials, **kwargs)
        elif credentials_mapping:
            self.client = gspread.service_account_from_dict(dict(credentials_mapping), **kwargs)
        else:
            named = {"filename": path_to_credentials} if path_to_credentials else {}
            self.client = gspread.service_account(**named, **kwargs)

    @classmethod
    def with_config(cls, config: Mapping[str, Any], **kwargs: Any) -> GoogleSheets:
        """Connect by `GOOGLE_SERVICE_ACC_KEY` or `GOOGLE_SERVICE_ACC_KEY_FILEPATH`."""
        return cls(**{**google_settings(config), **kwargs})

    def fetch_sheet(
        self, sheet_url: str | None = None, sheet_id: str | None = None, sheet_name: str | None = None
    ) -> Any:
        """Return gspread's object of a sheet.

        Raises:
            ConfigError: none is named.
        """
        if sheet_url:
            return self.client.open_by_url(sheet_url)
        if sheet_id:
            return self.client.open_by_key(sheet_id)
        if sheet_name:
            return self.client.open(sheet_name)
        raise ConfigError(
            "no Google Sheet is named", hint="pass sheet_url, sheet_id or sheet_name", code="export.no_table"
        )

    def fetch_worksheet(
        self,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        sheet_name: str | None = None,
        worksheet_name: str | None = None,
        worksheet_position: int = 0,
    ) -> Any:
        """Return gspread's object of a worksheet."""
        sheet = self.fetch_sheet(sheet_url, sheet_id, sheet_name)
        return sheet.worksheet(worksheet_name) if worksheet_name else sheet.get_worksheet(worksheet_position)

    def exists(
        self,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        sheet_name: str | None = None,
        worksheet_name: str | None = None,
        worksheet_position: int = 0,
    ) -> bool:
        """Return whether there is such a worksheet."""
        missing = need("gspread.exceptions", "google-sheets", "GoogleSheets", package="gspread")
        try:
            self.fetch_worksheet(sheet_url, sheet_id, sheet_name, worksheet_name, worksheet_position)
        except (missing.SpreadsheetNotFound, missing.WorksheetNotFound):
            return False
        return True

    def load(
        self,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        sheet_name: str | None = None,
        worksheet_name: str | None = None,
        worksheet_position: int = 0,
        header_rows: int = 1,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Load the rows of a worksheet.

        Args:
            sheet_url: the sheet's URL.
            sheet_id: the sheet's id.
            sheet_name: the sheet's title.
            worksheet_name: the worksheet's title.
            worksheet_position: the worksheet's place, if it is not named.
            header_rows: the row with the names of columns; cells below that look like numbers are numbers. With 0 the
                columns are numbered, and all cells are texts.
            limit: no more rows than these.
        """
        worksheet = self.fetch_worksheet(sheet_url, sheet_id, sheet_name, worksheet_name, worksheet_position)
        rows = worksheet.get_all_records(head=header_rows) if header_rows else worksheet.get_all_values()
        frame = pd.DataFrame(rows)
        return frame if limit is None else frame.head(limit)

    def export(
        self,
        df: Any,
        sheet_url: str | None = None,
        sheet_id: str | None = None,
        sheet_name: str | None = None,
        worksheet_name: str | None = None,
        worksheet_position: int = 0,
        if_exists: str | None = None,
    ) -> None:
        """Write a DataFrame with its header into a worksheet, from its first cell on; other cells keep what they have.

        `if_exists="replace"` clears the worksheet first, `append` adds the rows below the others.
        """
        frame = as_pandas(df)
        rows = frame.astype(object).where(frame.notna(), "").map(_cell).to_numpy().tolist()
        worksheet = self.fetch_worksheet(sheet_url, sheet_id, sheet_name, worksheet_name, worksheet_position)
        if if_exists == ExportWritePolicy.APPEND:
            worksheet.append_rows(rows)
            return
        if if_exists == ExportWritePolicy.REPLACE:
            worksheet.clear()
        worksheet.update([[str(name) for name in frame.columns], *rows])


def _cell(value: Any) -> Any:
    """Return a value as JSON has it; anything else as text."""
    return value if isinstance(value, bool | int | float | str) else str(value)
