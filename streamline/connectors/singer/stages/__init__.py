"""Stages for Singer sources and destinations, one per file; see `flow.protocols.Stage`."""
