"""Secrets of cloud services, under Mage's names; what is read is masked in the run's output."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from streamline.errors import ConfigError
from streamline.project import vaults
from streamline.project.current import current_project


def aws_secret(secret_id: str, cached: bool = True, **client: Any) -> str:
    """Read a secret of AWS Secrets Manager: `streamline.project.vaults.aws_secret`."""
    return _masked(vaults.aws_secret(secret_id, cached, **client))


def azure_secret(secret_name: str) -> str:
    """Read a secret of an Azure Key Vault: `streamline.project.vaults.azure_secret`."""
    return _masked(vaults.azure_secret(secret_name))


def gcp_secret(secret_id: str, **kwargs: Any) -> str:
    """Read a secret of Google's Secret Manager: `streamline.project.vaults.gcp_secret`."""
    return _masked(vaults.gcp_secret(secret_id, **kwargs))


def _masked(value: str) -> str:
    with suppress(ConfigError):  # a script outside of any project, which logs nothing
        current_project().secrets.masker.add(value)
    return value
