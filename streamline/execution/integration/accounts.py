"""What the state store is told about the positions of each tap process of a plan."""

from __future__ import annotations

from streamline.connectors.singer.state import owned_parts
from streamline.execution.integration.destination_identity import destinations_of, flat_start
from streamline.execution.integration.destination_plan import proving_sinks
from streamline.execution.integration.endpoints import owner_of
from streamline.execution.integration.plan import GroupPlan, Plan, SourcePlan
from streamline.execution.integration.run_store import SourceAccount
from streamline.execution.run import Run
from streamline.flow.items import REST


def account_of(context: Run, plan: Plan, group: GroupPlan) -> SourceAccount:
    """Return the account of one tap process."""
    source = plan.sources[group.source]
    owns, shared = owner_of(group, source), len(source.groups) > 1
    flat = flat_start(context, plan, group)

    def destinations(key: str, text: bytes) -> dict[str, str]:
        others = flat.unmoved(source, text) if flat is not None and key == REST else {}
        return {**others, **destinations_of(plan, source, key)}

    return SourceAccount(
        block=group.source,
        owned=lambda parts: owned_parts(parts, owns, shared=shared),
        sinks_of=lambda key: proving_of(plan, source, key),
        destinations=destinations,
        replication={
            stream.id: (stream.replication_method, ",".join(stream.bookmark_properties) or None)
            for stream in source.selected
        },
        rows=dict(group.rows),
        forgotten=source.forgotten,
        keyless=source.keyless,
        bookmarks_of=source.bookmarks_of,
        cause_of=source.cause_of,
        overrides=source.overrides,
        left_out=source.left_out if any(each.replication_method == "LOG_BASED" for each in group.streams) else [],
    )


def proving_of(plan: Plan, source: SourcePlan, key: str) -> list[str]:
    """Return the destinations that prove a bookmark of a source."""
    sinks = {sink: plan.sinks[sink].spec for sink in plan.paths[source.id].all_sinks()}
    # Mappers give streams other names.
    stream = source.find(key) if not plan.mappers.get(source.id) else None
    return proving_sinks(stream, source.selected, sinks)
