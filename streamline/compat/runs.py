"""`trigger_pipeline` and `check_status` in Mage's signatures, which put `repo_path` further ahead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamline import triggers
from streamline.api import Folder
from streamline.triggers import PipelineRun


def trigger_pipeline(
    pipeline_uuid: str,
    repo_path: Folder | Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    check_status: bool = False,
    error_on_failure: bool = False,
    poll_interval: float = 60,
    poll_timeout: float | None = None,
    schedule_name: str | None = None,
    verbose: bool = True,
    **kwargs: Any,
) -> PipelineRun:
    """`streamline.trigger_pipeline`. Its older form, with the variables in the second place, is taken as well."""
    if isinstance(repo_path, Mapping):
        repo_path, variables = None, repo_path
    return triggers.trigger_pipeline(
        pipeline_uuid,
        variables,
        check_status,
        error_on_failure,
        poll_interval,
        poll_timeout,
        schedule_name,
        verbose,
        repo_path=repo_path,
    )


def check_status(
    pipeline_uuid: str,
    execution_date: datetime | None = None,
    repo_path: Folder | None = None,
    block_uuid: str | None = None,
    hours: float = 24,
) -> bool:
    """`streamline.check_status`."""
    return triggers.check_status(pipeline_uuid, execution_date, block_uuid, hours, repo_path=repo_path)
