"""Suggestions for names that are not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most like `name`, best first; empty where none is like it."""
    import difflib

    by_fold: dict[str, str] = {}
    for one in known:
        by_fold.setdefault(one.casefold(), one)
    return [by_fold[hit] for hit in difflib.get_close_matches(name.casefold(), by_fold, limit, 0.6)]


def suggestion(name: str, known: Iterable[str], *, what: str = "known names") -> str:
    """A hint for an unknown name: the nearest known ones, else all of them.

    Args:
        what: the plural noun that the known names go by.
    """
    names = sorted(set(known))
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(repr(one) for one in near)}?"
    if not names:
        return f"there are no {what}"
    return f"{what}: {', '.join(names)}"


def almost(name: str, known: Iterable[str], likeness: float = 0.8) -> str | None:
    """The known name that `name` is nearly sure to mean, if it is so like one of them (1: the same).

    For names that may well be others' own.
    """
    import difflib

    near = difflib.get_close_matches(name.casefold(), sorted(known), 1, likeness)
    return near[0] if near else None


def words(text: str) -> frozenset[str]:
    """The words of `text`: a long set of names, kept readable."""
    return frozenset(text.split())
