"""Suggest known names for unknown ones."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names most similar to `name`, best first; empty if none is similar."""
    import difflib

    by_fold: dict[str, str] = {}
    for candidate in known:
        by_fold.setdefault(candidate.casefold(), candidate)
    return [by_fold[hit] for hit in difflib.get_close_matches(name.casefold(), by_fold, limit, 0.6)]


def suggestion(name: str, known: Iterable[str], *, what: str = "known names") -> str:
    """Return a hint for an unknown name: similar known names, else all of them.

    Args:
        what: the plural noun for the known names.
    """
    names = sorted(set(known))
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not names:
        return f"there are no {what}"
    return f"{what}: {', '.join(names)}"


def suggestion_and(hint: str, more: str) -> str:
    """Return a suggestion with another sentence, which begins in lower case."""
    return f"{hint} {more[0].upper()}{more[1:]}" if hint.endswith("?") else f"{hint}; {more}"


def almost(name: str, known: Iterable[str], likeness: float = 0.8) -> str | None:
    """Return the known name that is at least this similar to `name` (1: equal), else None.

    For names that may be the user's own.
    """
    import difflib

    near = difflib.get_close_matches(name.casefold(), sorted(known), 1, likeness)
    return near[0] if near else None


def words(text: str) -> frozenset[str]:
    """Return the words of `text` as a set."""
    return frozenset(text.split())
