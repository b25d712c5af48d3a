"""The table of data providers."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from streamline.databases.registry import PROVIDERS, find_provider
from streamline.errors import ConfigError


@pytest.mark.parametrize("name", [name for name, provider in PROVIDERS.items() if provider.dialect is None])
def test_a_provider_for_sqlalchemy_alone_says_which_url_and_package_to_use(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_provider(name)
    assert caught.value.code == "database.needs_sqlalchemy"
    provider = PROVIDERS[name]
    assert provider.install
    assert provider.install in str(caught.value.hint)
    assert provider.url in str(caught.value.hint)
    url = make_url(provider.url)
    if name in ("mssql", "oracledb"):  # those whose dialects come with SQLAlchemy
        assert url.get_dialect().driver in ("pyodbc", "oracledb")
