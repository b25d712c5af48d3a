"""Streamline: data pipelines from Singer taps and targets, blocks and streams, with proven delivery."""

__version__ = "0.1.0"
