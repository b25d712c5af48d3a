"""Lines of a target's input as messages."""

from __future__ import annotations

import pytest

from kit.connector import ConnectorError
from targets.common.messages import decode_lines

RECORD = b'{"type":"RECORD","stream":"orders","record":{"id":1,"id":2}}'


@pytest.mark.parametrize(
    "line",
    [
        RECORD[:-1] + b',"type":"SCHEMA","stream":"users","schema":{},"key_properties":[]}',
        RECORD[:-1] + b',"stream":"users"}',
        RECORD[:-1] + b',"str\\u0065am":"users"}',
        RECORD[:-1] + b',"record":{"id":3}}',
        RECORD[:-1] + b',"version":null,"version":2}',
        RECORD[:-1] + b',"time_extracted":"x","record":{"id":3}}',
        RECORD[:-1] + b',"record":{"id":NaN}}',
        b'{"type":"STATE","value":{"a":1},"value":{"b":2}}',
        b'{"type":"SCHEMA","stream":"a","schema":{},"key_properties":[],"schema":{}}',
        b'{"type":"ACTIVATE_VERSION","stream":"a","version":1,"stream":"b"}',
    ],
)
def test_a_line_with_a_key_twice_is_refused(line: bytes) -> None:
    """Who checked it before may have seen the first of two values, and we would see the last one."""
    with pytest.raises(ConnectorError, match=r"line 8 .* twice"):
        decode_lines(RECORD + b"\n" + line + b"\n", 7)


@pytest.mark.parametrize(
    "line",
    [
        RECORD,
        RECORD[:-1] + b',"version":7,"time_extracted":"2026-01-01T00:00:00Z"}',
        RECORD[:-1] + b',"version":null,"namespace":"x \\" y"}',
        b'{"record":{},"other":[{"type":1,"type":2}],"stream":"a \\"b\\"","type":"RECORD"}',
        b'{"type":"STATE","value":{"a":1,"a":2}}',
    ],
)
def test_what_stands_inside_a_record_or_a_state_is_no_key_of_the_message(line: bytes) -> None:
    assert len(decode_lines(b"\n".join([RECORD, line, line, b""]), 1)) == 3
