"""Credentials of git URLs: out of the URL, into a private file that git is told of."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from streamline.project.git_credentials import GitCredentials


@pytest.mark.parametrize(
    ("requirement", "rest", "line"),
    [
        (
            "tap @ git+https://u:p%40w@h/a/b.git@v1#egg=x",
            "tap @ git+https://h/a/b.git@v1#egg=x",
            "https://u:p%40w@h/a/b.git",
        ),
        ("-e git+http://u:a@b@h:81/x", "-e git+http://h:81/x", "http://u:a@b@h:81/x"),
        ("git+https://token@h/x", "git+https://h/x", "https://token:@h/x"),
    ],
)
def test_the_login_is_taken_out_of_the_url(tmp_path: Path, requirement: str, rest: str, line: str) -> None:
    file = tmp_path / "with space"
    credentials = GitCredentials(file)
    assert credentials.take(requirement) == rest
    with credentials.environment({"GIT_CONFIG_COUNT": "1"}) as environ:
        assert file.read_text() == f"{line}\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert environ["GIT_CONFIG_COUNT"] == "4"
        assert "GIT_CONFIG_KEY_0" not in environ
    assert not file.exists()


@pytest.mark.parametrize("requirement", ["tap", "git+ssh://git@h/x", "git+https://h/x@v1", "https://u:p@h/x.whl"])
def test_other_requirements_stay_as_they_are(tmp_path: Path, requirement: str) -> None:
    credentials = GitCredentials(tmp_path / "file")
    assert credentials.take(requirement) == requirement
    with credentials.environment({"A": "1"}) as environ:
        assert environ == {"A": "1"}


def test_two_logins_of_one_host_are_told_apart_by_path(tmp_path: Path) -> None:
    credentials = GitCredentials(tmp_path / "file")
    credentials.take("git+https://u:one@h/a")
    credentials.take("git+https://u:two@h/b")
    with credentials.environment({}) as environ:
        assert environ["GIT_CONFIG_VALUE_2"] == "true"
