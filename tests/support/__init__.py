"""Shared by tests of the real command: projects of fake connectors, runs, reading results, finding processes."""
