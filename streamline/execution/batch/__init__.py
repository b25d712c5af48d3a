"""Batch pipelines: their plan, the runner, and the worker processes that blocks run in."""
