"""The words of a message are asserted in one test only, so that changing them breaks one test.

Tests assert a failure's code and the names that its message must show (tests/support/failures.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("streamline", "kit", "taps", "targets")

WORDS = 3
"""Fewer words in a row are a name or a term."""

COMMON = re.compile(r"(a|an|and|are|be|been|by|can|cannot|for|has|have|in|is|it|no|not|of|on|or|the|there|to|was| )*")
"""A phrase of these words alone is grammar."""

FOREIGN = {("most", "recent", "call", "last")}
"""Phrases that other programs print, and that Streamline searches their output for."""

LITERAL = re.compile(
    r"""\#[^\n]* | \"{3}.*?\"{3} | (?P<prefix>[a-z]*)(?P<text>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')""",
    re.VERBOSE | re.DOTALL,
)
"""A comment, a docstring or, with its prefix, a string of one line."""

SQL = re.compile(r"\W*(alter|copy|create|delete|drop|from|insert|merge|select|update|when|with)\b", re.IGNORECASE)
BREAK = re.compile(r"\{[^{}]*\}|\.[*+]|\\[nd]|[0-9{}<>=|%]|\s{2,}")
"""Where a text holds a value, or the pattern of one."""

Phrase = tuple[str, ...]


def phrases(code: str, *, patterns: bool) -> Iterator[Phrase]:
    """Yield the phrases of all strings in this code, but of docstrings, SQL and (unless `patterns`) raw strings."""
    for match in LITERAL.finditer(code):
        text = match["text"]
        if (
            text is None
            or text.count(" ") < WORDS - 1
            or text.isupper()
            or SQL.match(text)
            or ("r" in match["prefix"] and not patterns)
        ):
            continue
        for part in BREAK.split(text):
            words = [word.strip(".,:;!?()[]'\"`…") for word in part.replace("\\", "").lower().split()]
            if len(words) >= WORDS:
                yield tuple(word for word in words if word)


def starts(phrase: Phrase) -> Iterator[Phrase]:
    for index in range(len(phrase) - WORDS + 1):
        yield phrase[index : index + WORDS]


def holds(phrase: Phrase, part: Phrase) -> bool:
    return any(phrase[index : index + len(part)] == part for index in range(len(phrase) - len(part) + 1))


def functions(code: str) -> Iterator[str]:
    """Yield the code of each top-level definition and each method, with its decorators."""
    for definition in code.split("\n\n\n"):
        yield from (
            re.split(r"\n\n(?=    (?:@|def|async def))", definition)
            if "\nclass " in f"\n{definition}"
            else [definition]
        )


def test_no_text_of_a_message_is_asserted_in_two_tests() -> None:
    messages = {
        phrase
        for folder in PRODUCT
        for file in (ROOT / folder).rglob("*.py")
        for phrase in phrases(file.read_text(), patterns=False)
    } - FOREIGN
    by_start = defaultdict(set)
    for message in messages:
        for start in starts(message):
            by_start[start].add(message)

    asserted: defaultdict[Phrase, set[str]] = defaultdict(set)
    for file in (ROOT / "tests").rglob("test_*.py"):
        for number, function in enumerate(functions(file.read_text())):
            for phrase in phrases(function, patterns=True):
                for message in {message for start in starts(phrase) for message in by_start.get(start, ())}:
                    shared = message if holds(phrase, message) else phrase
                    if holds(message, shared) and not COMMON.fullmatch(" ".join(shared)):
                        name = re.search(r"def (\w+)", function)
                        asserted[message].add(f"{file.relative_to(ROOT)}::{name[1] if name else number}")

    twice = {" ".join(message): sorted(tests) for message, tests in asserted.items() if len(tests) > 1}
    assert twice == {}
