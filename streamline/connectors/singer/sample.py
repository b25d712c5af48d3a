"""The first records of one stream, from a tap that is stopped once it has sent them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.connectors.singer.build import Workspace, tap_command
from streamline.connectors.singer.capabilities import Capabilities, tap_traits
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.selection import SelectedStream, TapTraits, apply_settings, choose
from streamline.connectors.singer.settings import Entry, StreamSettings
from streamline.connectors.singer.tap import TapFailed, TapProcess
from streamline.errors import StreamlineError
from streamline.flow.codecs import envelope
from streamline.flow.items import Item, RawBatch

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin


async def sample(
    plugin: Plugin,
    config: Mapping[str, Any],
    stream: str,
    workspace: Workspace,
    *,
    catalog: Catalog | None,
    streams: StreamSettings,
    capabilities: Capabilities,
    records: int,
    timeout: float,
    where: str | None = None,
    on_config_change: Callable[[dict[str, Any]], None] | None = None,
) -> list[bytes]:
    """Return the first records of a stream as JSON texts, at most `records` of them.

    Args:
        stream: id or stream name; it need not be selected.
        catalog: what the tap offers; None if it has no discovery.
        streams: the block's stream settings; they choose the columns.
        timeout: seconds until the tap is stopped whatever it has sent.

    Raises:
        ConfigError: there is no such stream, or its settings cannot be applied.
        StreamlineError: the tap failed or timed out before it had sent a record.
    """
    names = frozenset({stream})
    data: Mapping[str, Any] | None = None
    if catalog is not None:
        entry = catalog.require(stream, where=where)
        names = frozenset({stream, *entry.names})
        wanted = StreamSettings((*streams.entries, Entry(entry.id, {"selected": True})))
        traits = tap_traits(plugin, capabilities, config)
        selected = choose(catalog, wanted, tap=traits, stream_filter=[entry.id], where=where)
        data = catalog_to_look(catalog, [each for each in selected if each.id == entry.id], traits)
    tap = TapProcess(
        tap_command("sample", plugin, config, workspace, capabilities=capabilities, catalog=data, timeout=timeout),
        run_dir=workspace.run_dir,
        masker=workspace.masker,
        log=workspace.log_of(plugin.name),
        on_config_change=on_config_change,
    )
    texts: list[bytes] = []

    async def take(items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, RawBatch) and item.stream in names:
                texts.extend(islice(envelope.records(item), records - len(texts)))
        if len(texts) >= records:
            tap.stop("it has sent enough")

    try:
        await tap.run(take)
    except (TapFailed, TapOutputError) as error:
        if texts:
            return texts
        if error.code != "tap.timed_out":
            raise
        raise StreamlineError(
            f"the tap sent no record of {stream!r} within {timeout:g} s",
            where=plugin.name,
            hint=error.hint,
            code="tap.no_record",
        ) from None
    return texts


def catalog_to_look(catalog: Catalog, selected: Sequence[SelectedStream], traits: TapTraits) -> Mapping[str, Any]:
    """Return the catalog for a tap that is started without a state, and stopped early.

    LOG_BASED streams are read as tables: a look must not touch the log's position.
    """
    tables = [
        msgspec.structs.replace(each, replication_method="FULL_TABLE")
        if each.replication_method == "LOG_BASED"
        else each
        for each in selected
    ]
    return apply_settings(catalog, tables, tap=traits).data
