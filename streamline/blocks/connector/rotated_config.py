"""What plugins write back into their config files: rotated tokens, without which the next run is locked out."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from streamline.flow.codecs import jsontext
from streamline.state.store import PluginSecret

if TYPE_CHECKING:
    from streamline.project.secrets import Masker
    from streamline.state.store import Store


def with_written_back(
    config: Mapping[str, Any], store: Store, masker: Masker, *, pipeline: str, block: str
) -> dict[str, Any]:
    """Return a block's rendered config with what its plugin wrote back in earlier runs.

    A value that the user has changed since then wins again.
    """
    result = dict(config)
    for name, secret in store.plugin_secrets(pipeline, block).items():
        if secret.replaces == _digest(config.get(name)):
            result[name] = jsontext.decode(secret.value.encode())
            masker.add(result[name])
    return result


def keep_written_back(
    config: Mapping[str, Any], written: Mapping[str, Any], store: Store, masker: Masker, *, pipeline: str, block: str
) -> None:
    """Keep what a plugin changed in its config file.

    Args:
        config: the block's rendered config, as the user wrote it.
        written: what stands in the file now.
    """
    known = with_written_back(config, store, masker, pipeline=pipeline, block=block)
    for name, value in written.items():
        if known.get(name) != value:
            masker.add(value)
            text = jsontext.encode(value).decode()
            secret = PluginSecret(name=name, value=text, replaces=_digest(config.get(name)))
            store.plugin_secret_put(pipeline, block, secret)


def _digest(value: object) -> str:
    return sha256(jsontext.encode(value)).hexdigest()
