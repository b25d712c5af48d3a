"""A schema registry over TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.connectors.kafka.serde_settings import RegistrySettings
from streamline.connectors.kafka.serialization.registry import Schema, SchemaRegistry
from streamline.errors import StreamlineError
from tests.services.require import ServiceMissingError, missing
from tests.services.tls import make_certificates
from tests.support.registry import registry_stub


def test_its_certificate_is_verified(tmp_path: Path) -> None:
    try:
        certificates = make_certificates(tmp_path)
    except ServiceMissingError as error:
        missing(str(error))
    with registry_stub(certificates.server) as stub:
        number = stub.add("orders-value", "string")
        trusted = SchemaRegistry(RegistrySettings(urls=(stub.url,), cafile=str(certificates.authority)))
        assert trusted.schema(number) == Schema(text='"string"')
        for settings in (
            RegistrySettings(urls=(stub.url,)),
            RegistrySettings(urls=(stub.url.replace("localhost", "127.0.0.1"),), cafile=str(certificates.authority)),
        ):
            with pytest.raises(StreamlineError) as caught:
                SchemaRegistry(settings).schema(number)
            assert caught.value.code == "registry.certificate_invalid"
