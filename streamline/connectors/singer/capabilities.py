"""Finds out what a plugin can do, once per installed version.

Plugins of the SDK describe themselves (`--about`); of all others the help text is the only thing to ask. It is asked
first: a program that looks at no option would start to work, and should be made to do so as seldom as possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.connectors.singer.ask import ask
from streamline.connectors.singer.catalog import METHODS, method_name
from streamline.connectors.singer.selection import SDK, TapTraits
from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.processes.child import TextMasker
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin
    from streamline.state.store import Store

TIMEOUT = 120.0
"""Seconds for one question; large plugins take several to be imported from a cold disk."""

_CACHE = "capabilities"
_OPTION = re.compile(r"(?<![\w-])--(config|catalog|properties|state|discover|about|test|input)(?![\w-])")


class SettingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as a plugin describes it. `type` is a JSON type, several with ` or `; empty if it does not say."""

    name: str
    type: str
    required: bool
    default: Any = None
    description: str


class Capabilities(msgspec.Struct, frozen=True):
    """What a plugin can do.

    Args:
        known: its help was understood. If not, everything is tried and nothing relied upon.
        config: it takes `--config`.
        catalog_flags: the options that its catalog is given with; empty if it takes none. A tap that lists both
            `--catalog` and `--properties` gets both: most read the first, but singer-python's forks list it also
            for taps that read `--properties` alone (pipelinewise-tap-s3-csv), and these move nothing without it.
        state: it takes `--state`.
        discover: it takes `--discover`; None: to be tried.
        about: what it says about itself; empty if it can't.
        names: the capabilities that it lists there.
    """

    known: bool = False
    config: bool = True
    catalog_flags: tuple[str, ...] = ("--catalog",)
    state: bool = True
    discover: bool | None = None
    about: dict[str, Any] = {}
    names: frozenset[str] = frozenset()

    @property
    def multiple_bookmarks(self) -> bool:
        """It follows several bookmark properties at once."""
        return "multiple-bookmarks" in self.names

    @property
    def activate_version(self) -> bool:
        """It acts on ACTIVATE_VERSION."""
        return "activate-version" in self.names

    @property
    def batch(self) -> bool:
        """It takes or sends the SDK's BATCH messages."""
        return "batch" in self.names

    @property
    def pipelinewise_batch(self) -> bool:
        """It takes PipelineWise's BATCH messages."""
        return "pipelinewise-batch" in self.names

    @property
    def max_processes(self) -> int | None:
        """How many of it may run at once, where it says so."""
        value = self.about.get("max_processes")
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    @property
    def settings(self) -> dict[str, Any]:
        """The JSON schemas of the settings that it lists, by name."""
        settings = self.about.get("settings")
        if isinstance(settings, dict):
            properties = settings.get("properties", settings)
            return properties if isinstance(properties, dict) else {}
        if isinstance(settings, list):
            return {str(setting.get("name")): setting for setting in settings if isinstance(setting, dict)}
        return {}

    def described_settings(self) -> list[SettingInfo]:
        """Return the settings that it lists, the required ones first."""
        listed = self.about.get("settings")
        required = listed.get("required") if isinstance(listed, dict) else None
        names = required if isinstance(required, list) else []
        infos = []
        for name, schema in self.settings.items():
            if not isinstance(schema, dict):
                continue
            kinds = schema.get("type") or schema.get("kind") or []
            kinds = [str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
            needed = name in names or schema.get("required") is True
            description = " ".join(str(schema.get("description") or schema.get("title") or "").split())
            infos.append(
                SettingInfo(
                    name=name,
                    type=" or ".join(kinds),
                    required=needed,
                    default=schema.get("default"),
                    description=description,
                )
            )
        return sorted(infos, key=lambda setting: not setting.required)


def check_config(plugin: Plugin, config: Mapping[str, Any], capabilities: Capabilities, *, where: str) -> None:
    """Check a plugin's settings, if it says that those it lists are all that it takes.

    Args:
        config: the settings.
        where: the block's file, for errors.

    Raises:
        ConfigError: a setting does not exist or is of the wrong type, or a required one is missing.
    """
    listed = capabilities.about.get("settings")
    if not isinstance(listed, dict) or listed.get("additionalProperties") is not False:
        return
    for name, value in config.items():
        if name not in capabilities.settings:
            raise ConfigError(
                f"{plugin.name} has no setting {name!r}",
                where=where,
                hint=suggestion(name, capabilities.settings, what="its settings"),
                code="setting.unknown",
            )
        kinds = capabilities.settings[name].get("type")
        allowed = [kinds] if isinstance(kinds, str) else kinds or ()
        if allowed and not any(isinstance(value, _KINDS.get(kind, object)) for kind in allowed):
            raise ConfigError(
                f"setting {name!r} of {plugin.name} must be of type {allowed[0]}",
                where=where,
                hint=capabilities.settings[name].get("description"),
                code="setting.invalid",
            )
    for name in listed.get("required") or ():
        if name not in config:
            description = capabilities.settings.get(name, {}).get("description")
            raise ConfigError(
                f"{plugin.name} needs the setting {name!r}",
                where=where,
                hint="add it below `config:`" + (f": {description}" if description else ""),
                code="setting.missing",
            )


_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


async def probe(
    plugin: Plugin,
    *,
    store: Store | None,
    masker: TextMasker,
) -> Capabilities:
    """Return what a plugin can do: asked once per fingerprint, then read from the store.

    Raises:
        ConfigError: the program can't be started.
    """
    if store is not None and (cached := cached_capabilities(plugin, store)) is not None:
        return cached
    answer = await ask(plugin, ["--help"], masker=masker, timeout=TIMEOUT)
    text = "\n".join([answer.stdout.decode("utf-8", "replace"), *answer.stderr_tail])
    # Records may hold any word; a timeout or a failure, which argparse tells with the options it wants, is no answer.
    failed = not answer.sent_messages and answer.returncode != 0
    options = set() if answer.sent_messages or answer.timed_out or failed else set(_OPTION.findall(text))
    if options & {"config", "catalog", "properties", "state", "discover"}:
        capabilities = Capabilities(
            known=True,
            config="config" in options,
            catalog_flags=tuple(f"--{name}" for name in ("catalog", "properties") if name in options),
            state="state" in options,
            discover="discover" in options,
        )
    else:
        capabilities = Capabilities()
    if capabilities.known or "about" in options:
        # Also where its help does not mention it: whoever parses options refuses unknown ones.
        answer = await ask(plugin, ["--about", "--format=json"], masker=masker, timeout=TIMEOUT)
        if answer.returncode == 0 and (about := _about(answer.stdout)) is not None:
            names = about.get("capabilities")
            capabilities = msgspec.structs.replace(
                capabilities, about=about, names=frozenset(map(str, names)) if isinstance(names, list) else frozenset()
            )
        # Exit code 2 is that of a program that does not know the option; others may be mended.
        failed = answer.returncode not in (0, 2)
    if store is not None and not answer.timed_out and not failed:
        remember(plugin, capabilities, store)
    return capabilities


def cached_capabilities(plugin: Plugin, store: Store) -> Capabilities | None:
    """Return what the store knows of this version of the plugin."""
    text = store.cache_get(_CACHE, _key(plugin))
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Capabilities)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None  # written by another version of this program


def remember(plugin: Plugin, capabilities: Capabilities, store: Store) -> None:
    """Save what a plugin can do in the store."""
    store.cache_put(_CACHE, _key(plugin), msgspec.json.encode(capabilities).decode())


def library(plugin: Plugin, capabilities: Capabilities) -> str | None:
    """Return the Singer library that the plugin is made with, None if not known."""
    if "sdk_version" in capabilities.about or "singer_sdk_version" in capabilities.about:
        return SDK
    return plugin.library


def tap_traits(plugin: Plugin, capabilities: Capabilities, config: Mapping[str, Any]) -> TapTraits:
    """Return what selection needs to know about a tap."""
    default = config.get("default_replication_method")
    method = method_name(default) if isinstance(default, str) else None
    return TapTraits(
        name=plugin.name,
        library=library(plugin, capabilities),
        multiple_bookmarks=capabilities.multiple_bookmarks,
        default_replication_method=method if method in METHODS else None,
    )


def _key(plugin: Plugin) -> str:
    return f"{plugin.role}/{plugin.name}/{plugin.fingerprint}"


def _about(stdout: bytes) -> dict[str, Any] | None:
    _, brace, rest = stdout.partition(b"{")
    try:
        about = jsontext.decode(brace + rest)
    except jsontext.JSONTextError:
        return None
    return about if isinstance(about, dict) else None
