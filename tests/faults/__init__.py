"""Kills of processes at random moments, and whether everything is right after the next run."""
