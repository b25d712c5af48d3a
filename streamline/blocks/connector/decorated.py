"""Sources and destinations in Python: calls their decorated functions, in order, and keeps what they return.

`source` or `destination`, then `config`, `selected_streams`, `catalog`; each once, with the outputs of the upstream
blocks as arguments. A source is asked for its streams only if a decorator's argument or a function asks for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamline.blocks.connector.asking import AskedSource
from streamline.blocks.connector.functions import (
    CATALOG,
    CONFIG,
    NAMED,
    SELECTED_STREAMS,
    decorator_arguments,
    missing_function,
)
from streamline.blocks.connector.mage_config import with_plugin_keys
from streamline.blocks.connector.prepared import Export, PreparedDestination, PreparedSource
from streamline.blocks.connector.returned import Returned
from streamline.blocks.connector.select_all import deselect_others, for_function, from_function
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.blocks.python.block import invoke, load
from streamline.blocks.python.file import UserError, name_of
from streamline.connectors.plugins import unavailable
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.settings import parse_streams
from streamline.decorators import marks_of
from streamline.errors import ConfigError
from streamline.flow.items import JSONObject
from streamline.pipeline.kinds import ConnectorRole

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, UpstreamOutput
    from streamline.connectors.registry import Role as PluginRole
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

PLUGIN_ROLES: Mapping[ConnectorRole, PluginRole] = {"source": "tap", "destination": "target"}


def prepare_source(
    call: BlockCall, arguments: Sequence[UpstreamOutput], model: Callable[[], PipelineModel]
) -> PreparedSource:
    """Call the functions of a source.

    Args:
        arguments: the upstream outputs that they get.
        model: reads the pipeline.

    Raises:
        ConfigError: a function is missing, or returned something wrong.
        UserError: one of them raised.
        StreamlineError: the source was asked for its streams and failed.
    """
    functions = _Functions(call, "source", arguments)
    name, config = functions.connector()
    spec = SourceSpec(source=name.name(), config=config, where=name.where)
    asked = functions.asked = AskedSource(call, model, spec)

    selected, _ = functions.optional(
        SELECTED_STREAMS,
        lambda settings: {
            "selected_streams": asked.streams() if settings["discover_streams"] else None,
            "discover_streams_func": asked.streams,
        },
    )
    streams = selected.streams() if selected is not None else []
    functions.offered["selected_streams"] = streams

    def offered(settings: Mapping[str, bool]) -> dict[str, Any]:
        def discover() -> JSONObject:
            return for_function(asked.catalog(), settings["select_all"])

        return {"catalog": discover() if settings["discover"] else None, "discover_func": discover}

    over = _catalog(call, *functions.optional(CATALOG, offered), streams)
    known = asked.layered(over)
    if selected is not None and streams:
        entries = {stream: known.require(stream, where=selected.where) for stream in streams} if known else {}
        if over is not None:  # it was returned later, and may deselect what was named before
            streams = [stream for stream in streams if stream not in entries or entries[stream].selected_by_default]
        if not streams:
            raise ConfigError(
                "the catalog deselects all streams that are named",
                where=selected.where,
                hint="select one of them in its metadata in the catalog that the other function returns",
                code="stream.none_selected",
            )
        spec.streams = parse_streams(streams, "source", where=lambda path: selected.where)
    return PreparedSource(
        spec=spec,
        catalog=over.data if over is not None else None,
        discovered=asked.discovered,
        catalog_where=over.where or "" if over is not None else "",
    )


def prepare_destination(
    call: BlockCall, arguments: Sequence[UpstreamOutput], exports: list[Export]
) -> PreparedDestination:
    """Call the functions of a destination. Args, errors: see `prepare_source`."""
    functions = _Functions(call, "destination", arguments)
    name, config = functions.connector()
    selected, _ = functions.optional(SELECTED_STREAMS)
    streams = selected.streams() if selected is not None else []
    functions.offered["selected_streams"] = streams
    over = _catalog(call, *functions.optional(CATALOG), streams)
    if over is not None and streams:
        deselect_others(over, streams)
    spec = DestinationSpec(destination=name.name(), config=config, where=name.where)
    if selected is not None:
        place = selected.where
        spec.streams = parse_streams(streams, "destination", where=lambda path: place)
    return PreparedDestination(
        spec=spec,
        exports=exports,
        catalog=over.data if over is not None else None,
        catalog_where=over.where or "" if over is not None else "",
    )


def check_name(project: Project, name: str, role: ConnectorRole, where: str) -> None:
    """Check that there is a plugin for the name that a block gives. Nothing is installed.

    Raises:
        ConfigError: there is none.
    """
    error: ConfigError | None = unavailable(project, name, PLUGIN_ROLES[role])
    if error is not None:
        error.where = where
        raise error


class _Functions:
    """The decorated functions of a block's file.

    Attributes:
        offered: the keyword arguments that follow from what functions have returned.
        asked: the source that they may ask for its streams.
    """

    def __init__(self, call: BlockCall, role: ConnectorRole, arguments: Sequence[UpstreamOutput]) -> None:
        self.offered: dict[str, Any] = {}
        self.asked: AskedSource | None = None
        self._call = call
        self._role = role
        self._arguments = arguments
        self._file = load(call)

    def connector(self) -> tuple[Returned, dict[str, Any]]:
        """Call the two required functions. Return the name and the config, whose secrets are masked from then on."""
        project = self._call.project
        returned = self._required(NAMED[self._role])
        name = returned.name()
        check_name(project, name, self._role, returned.where)
        self.offered[self._role] = name
        config = self._required(CONFIG).config()
        project.secrets.masker.add_config(config)
        self.offered["config"] = config
        return returned, with_plugin_keys(config, name, PLUGIN_ROLES[self._role]) if project.mage else config

    def optional(
        self, decorator: str, more: Callable[[Mapping[str, bool]], dict[str, Any]] | None = None
    ) -> tuple[Returned | None, Mapping[str, bool]]:
        """Call a function if there is one. Return what it returned, and the arguments of its decorator.

        Args:
            more: returns its further keyword arguments, given the arguments of its decorator.
        """
        if not self._file.marked(decorator):
            return None, {}
        function = self._only(decorator)
        settings = self._settings(decorator, function)
        return self._invoke(function, more(settings) if more is not None else {}), settings

    def _required(self, decorator: str) -> Returned:
        if not self._file.marked(decorator):
            raise missing_function(decorator, self._role, self._call.where)
        function = self._only(decorator)
        self._settings(decorator, function)
        return self._invoke(function, {})

    def _only(self, decorator: str) -> Callable[..., Any]:
        return self._file.only(decorator, self._call.warn if self._call.project.mage else None)

    def _settings(self, decorator: str, function: Callable[..., Any]) -> Mapping[str, bool]:
        mark = next(mark for mark in marks_of(function) if mark.kind == decorator)
        return decorator_arguments(decorator, mark.args, mark.kwargs, self._role, self._file.where(function))

    def _invoke(self, function: Callable[..., Any], more: Mapping[str, Any]) -> Returned:
        # Copies: what a function does to its arguments changes nothing for the next one, or for the run.
        own = {**copy.deepcopy(self.offered), **more}
        kwargs = {**self._call.kwargs, **own}
        try:
            value = invoke(
                self._call, self._file, function, self._arguments, kwargs=kwargs, spare=True, reserved=own.keys()
            )
        except UserError as error:
            failure = self.asked.failure if self.asked is not None else None
            if failure is not None and error.__context__ is failure:
                raise failure from None  # the source's own error, which the function let pass
            raise
        return Returned(value, name_of(function), self._file.where(function))


def _catalog(
    call: BlockCall, returned: Returned | None, settings: Mapping[str, bool], selected: Collection[str]
) -> Catalog | None:
    """Return the catalog that a function returned; None: it overrides nothing.

    Args:
        selected: the streams that another function has named.

    Raises:
        ConfigError: it is no catalog.
    """
    data = returned.catalog() if returned is not None else None
    if returned is None or data is None:
        return None
    catalog = Catalog(data, where=returned.where)
    if not len(catalog):
        call.log(f"{returned.where}: the catalog has no streams, so nothing is overridden")
        return None
    return Catalog(from_function(catalog.data, settings["select_all"], selected), where=returned.where)
