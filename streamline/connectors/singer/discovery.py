"""A source's catalog: discovered by its tap, kept until config, plugin or settings change, and layered."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.connectors.singer.ask import Answer, ask
from streamline.connectors.singer.capabilities import Capabilities, remember
from streamline.connectors.singer.catalog import Catalog, layer, needs_discovery
from streamline.connectors.singer.catalog_changes import CatalogWatch, catalog_changes
from streamline.connectors.singer.log_tail import hint_of, refuses_config
from streamline.connectors.singer.settings import NO_SETTINGS, StreamSettings
from streamline.connectors.singer.tap import MAX_CONFIG_BYTES
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.codecs import jsontext
from streamline.processes.child import TextMasker, private_file
from streamline.processes.regular_file import read_regular

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin
    from streamline.state.store import Store

TIMEOUT = 900.0
"""Seconds; large databases take minutes."""

_CACHE = "discovery"
_SEEN = "discovered_streams"
_REFUSALS = r"(?i)(unrecogni[sz]ed|unknown|invalid|illegal|no such|bad) (argument|option|flag)|extra operand"


class DiscoveryFailed(StreamlineError):
    """A tap's discovery failed. Another attempt may help: its database may have been down.

    Attributes:
        block: the uuid of the source block, in a run.
    """

    code = "tap.discovery_failed"
    block: str | None = None


class Discovered(msgspec.Struct):
    """A source's catalog.

    Args:
        catalog: None for a tap that has no discovery, where no catalog was given either: it sends what it has.
        capabilities: what is known about the tap, now that it was asked.
        cached: the tap was not asked this time.
        changes: how the catalog differs from the one that was kept, in words.
        seen: names of streams that the tap has discovered with this config and these settings, now or earlier.
        watch: compares the SCHEMAs of a run with the catalog; None where the tap did not discover it.
    """

    catalog: Catalog | None
    capabilities: Capabilities
    cached: bool = False
    changes: list[str] = []
    seen: frozenset[str] = frozenset()
    watch: CatalogWatch | None = None


class Discovery:
    """Gets a source block's catalog.

    Args:
        plugin: the tap.
        config: its rendered config.
        capabilities: what is known about it.
        store: keeps discovered catalogs; None: nothing is kept.
        run_dir: a folder (0700) for its private files.
        masker: masks secrets in its log.
        streams: the block's stream settings, which a kept catalog depends on, too.
        log: called with each masked line of its stderr.
        config_changed: called with the config that the tap wrote back into its file, if it did.
        timeout: seconds that discovery may take.
        discovered: what the tap has discovered in this run; it is not asked again.
    """

    def __init__(
        self,
        plugin: Plugin,
        config: Mapping[str, Any],
        *,
        capabilities: Capabilities,
        store: Store | None,
        run_dir: Path,
        masker: TextMasker,
        streams: StreamSettings = NO_SETTINGS,
        log: Callable[[str], None] | None = None,
        config_changed: Callable[[dict[str, Any]], None] | None = None,
        timeout: float = TIMEOUT,
        discovered: Catalog | None = None,
    ) -> None:
        self._plugin = plugin
        self._config = config
        self._capabilities = capabilities
        self._store = store
        self._run_dir = run_dir
        self._masker = masker
        self._streams = streams
        self._log = log
        self._config_changed = config_changed
        self._timeout = timeout
        self._discovered = discovered

    async def catalog(self, *over: Catalog | None, refresh: bool = False) -> Discovered:
        """Return the discovered catalog with others laid over it, the last one on top (None: nothing to lay).

        A catalog says which streams there are; where it gives every schema, the tap is not asked at all.

        Args:
            over: the block's catalog.json, a Python block's catalog.
            refresh: ask the tap even if a catalog is kept.

        Raises:
            DiscoveryFailed: the tap failed, or printed no catalog.
            ConfigError: the tap cannot be started, does not accept its config, or its catalog's streams are wrong.
        """
        layers = [overlay for overlay in over if overlay is not None]
        if layers and not refresh and not any(needs_discovery(overlay) for overlay in layers):
            if self._capabilities.discover is None:
                # Its help said nothing: this tells whether it looks at its arguments at all.
                with contextlib.suppress(ConfigError, DiscoveryFailed):
                    await self.discover()
            discovered = Discovered(None, self._capabilities)
        else:
            discovered = await self.discover(refresh=refresh)
        for overlay in layers:
            discovered.catalog = layer(discovered.catalog, overlay)
        return discovered

    async def discover(self, *, refresh: bool = False) -> Discovered:
        """Return the catalog that the tap discovers, or a kept one.

        Raises:
            DiscoveryFailed: the tap failed, or printed no catalog.
            ConfigError: the tap cannot be started, does not accept its config, or its catalog's streams are wrong.
        """
        if self._discovered is not None:
            key, known = self._key(), self._discovered
            watch = self._watch(key, known, cached=True)  # it may have been
            return Discovered(known, self._capabilities, seen=self._seen(key, known), watch=watch)
        if self._capabilities.discover is False:
            return Discovered(None, self._capabilities)
        key = self._key()
        kept = self._kept(key)
        if kept is not None and not refresh and not self._plugin.cheap_discovery:
            seen, watch = self._seen(key, kept), self._watch(key, kept, cached=True)
            return Discovered(kept, self._capabilities, cached=True, seen=seen, watch=watch)
        answer = await self._ask()
        catalog = find_catalog(answer.stdout, where=self._plugin.name)
        if catalog is None and not self._capabilities.known and (bare := _no_discovery(answer)) is not None:
            self._learn(bare)
            return Discovered(None, bare)
        if answer.returncode != 0 or catalog is None:
            raise self._failure(answer)
        if self._capabilities.discover is None:
            self._learn(msgspec.structs.replace(self._capabilities, discover=True))
        changes = catalog_changes(kept, catalog) if kept is not None else []
        if self._store is not None and (kept is None or kept.data != catalog.data):
            self._store.cache_put(_CACHE, key, catalog.to_json().decode())
        seen, watch = self._seen(key, catalog), self._watch(key, catalog, cached=False)
        return Discovered(catalog, self._capabilities, changes=changes, seen=seen, watch=watch)

    def _kept(self, key: str) -> Catalog | None:
        text = self._store.cache_get(_CACHE, key) if self._store is not None else None
        return Catalog.parse(text.encode(), where=self._plugin.name) if text else None

    def _seen(self, key: str, catalog: Catalog) -> frozenset[str]:
        """Return the names of the catalog's streams and of those in earlier ones."""
        names = {name for stream in catalog for name in (stream.id, stream.stream)}
        if self._store is None:
            return frozenset(names)
        text = self._store.cache_get(_SEEN, key)
        earlier = frozenset(json.loads(text)) if text else frozenset()
        if not names <= earlier:
            self._store.cache_put(_SEEN, key, json.dumps(sorted(earlier | names)))
        return earlier | names

    def _watch(self, key: str, catalog: Catalog, *, cached: bool) -> CatalogWatch | None:
        if self._store is None or self._plugin.cheap_discovery:
            return None
        store = self._store
        return CatalogWatch(catalog, store, key, forget=(lambda: store.cache_drop(_CACHE, key)) if cached else None)

    def _learn(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        if self._store is not None:
            remember(self._plugin, capabilities, self._store)

    async def _ask(self) -> Answer:
        text = jsontext.encode(dict(self._config))
        # Several blocks may ask the same plugin at once, each with its own config.
        path = private_file(self._run_dir, f"discover-{self._plugin.name}-{token_hex(4)}.json", text)
        try:
            arguments = [*(("--config", str(path)) if self._capabilities.config else ()), "--discover"]
            answer = await ask(self._plugin, arguments, masker=self._masker, timeout=self._timeout, log=self._log)
            self._look_for_changes(path, text)
            return answer
        finally:
            with contextlib.suppress(OSError):  # the tap may have made a folder of it
                path.unlink(missing_ok=True)

    def _look_for_changes(self, path: Path, before: bytes) -> None:
        """Note a token that the tap has rotated into its config file; losing it locks the user out."""
        if self._config_changed is None:
            return
        try:
            after = read_regular(path, MAX_CONFIG_BYTES)
            changed = jsontext.decode(after) if after != before else None
        except (OSError, jsontext.JSONTextError):
            return
        if isinstance(changed, dict) and changed != dict(self._config):
            self._config_changed(changed)

    def _key(self) -> str:
        """Return the key of a kept catalog. It is a hash: the config is never stored."""
        # Without the lines that they stand on: a comment above them changes nothing.
        settings = [[entry.pattern, entry.settings] for entry in self._streams.entries]
        parts = {"config": dict(self._config), "fingerprint": self._plugin.fingerprint, "settings": settings}
        text = json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        return f"{self._plugin.name}/{blake2b(text, digest_size=16).hexdigest()}"

    def _failure(self, answer: Answer) -> StreamlineError:
        if refuses_config(answer.returncode, answer.stderr_tail):
            return ConfigError(
                f"does not accept its config (exit code {answer.returncode})",
                where=self._plugin.name,
                hint=hint_of(answer.stderr_tail),
                code="tap.config_refused",
            )
        if answer.timed_out:
            what = f"discovery took longer than {self._timeout:g} s"
        elif answer.returncode < 0:
            what = f"discovery was ended by signal {-answer.returncode}"
        elif answer.returncode:
            what = f"discovery failed with exit code {answer.returncode}"
        elif answer.sent_messages:
            what = "discovery printed records instead of a catalog"
        else:
            what = "discovery printed no catalog"
        lines = (
            answer.stderr_tail or self._masker.mask(answer.stdout[:2000].decode("utf-8", "replace")).splitlines()[:5]
        )
        return DiscoveryFailed(what, where=self._plugin.name, hint=hint_of(lines))


def read_catalog_file(path: Path, *, shown: str | None = None) -> Catalog | None:
    """Return the catalog in a file, None if there is no such file.

    Raises:
        ConfigError: it can't be read, or is no catalog.
    """
    where = shown or str(path)
    try:
        return Catalog.parse(path.read_bytes(), where=where)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"it can't be read: {error.strerror}", where=where, code="file.not_readable") from None


def find_catalog(stdout: bytes, *, where: str | None = None) -> Catalog | None:
    """Return the catalog in what a tap printed, with whatever stands before and after it; None if there is none.

    Raises:
        ConfigError: there is one, but its streams are wrong.
    """
    try:
        data = jsontext.decode(stdout)
    except jsontext.JSONTextError:
        data = _among_noise(stdout.decode("utf-8", "replace"))
    return Catalog(data, where=where) if isinstance(data, dict) and isinstance(data.get("streams"), list) else None


def _among_noise(text: str) -> object:
    decoder = json.JSONDecoder()
    at = 0
    next_object = re.compile(r"^[ \t]*\{", re.MULTILINE)
    while (begin := next_object.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, begin.end() - 1)
        except (json.JSONDecodeError, RecursionError):
            at = begin.end()
        else:
            if isinstance(value, dict) and isinstance(value.get("streams"), list):
                return value
    return None


def _no_discovery(answer: Answer) -> Capabilities | None:
    """Return what a program without help is, once `--discover` got no catalog; None: discovery failed."""
    if answer.sent_messages or (answer.returncode == 0 and not answer.timed_out):
        # It does not look at its arguments, or looks for some of them only.
        return Capabilities(discover=False)
    if any(re.search(_REFUSALS, line) for line in answer.stderr_tail):
        # It looks at its arguments and knows none of ours, as `cat FILE` does.
        return Capabilities(config=False, catalog_flags=(), state=False, discover=False)
    return None
