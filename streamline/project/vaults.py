"""`aws_secret_var`, `azure_secret_var` and similar functions in io_config.yaml: called when the key is read.

So a profile may contain such calls without cost or errors, if only its other keys are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from streamline.errors import ConfigError
from streamline.project.extras import need
from streamline.project.render import check_deferred

# Private-use characters: not used in configurations, and valid in any YAML scalar.
_MARK = re.compile("\ue000late:(\\d+)\ue001")


class LateValues:
    """Calls that were deferred while a file was rendered; each left a placeholder in the text."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], str]] = []

    def names(self) -> dict[str, Any]:
        """Return the functions for templates: each returns a placeholder, which `complete` replaces by the value."""
        vaults: dict[str, Callable[..., str]] = {
            "aws_secret_var": aws_secret,
            "azure_secret_var": azure_secret,
            "gcp_secret_var": gcp_secret,
            "doppler_secret_var": _refuse("doppler_secret_var", "Doppler"),
            "vault_secret_var": _refuse("vault_secret_var", "HashiCorp Vault"),
        }
        return {name: self._deferred(function) for name, function in vaults.items()} | {"json_value": self._json_value}

    def complete(self, text: str, where: str | None = None) -> tuple[str, list[str]]:
        """Return `text` with every placeholder replaced, and the secrets that were read.

        Raises:
            ConfigError: a secret cannot be read; the error names file and line.
        """
        secrets: list[str] = []

        def value(match: re.Match[str]) -> str:
            try:
                secret = self._calls[int(match[1])]()
            except ConfigError as error:
                raise ConfigError(
                    error.message, where=error.where or where, hint=error.hint, code=error.code
                ) from error
            secrets.append(secret)
            return secret

        return _MARK.sub(value, text), secrets

    def _deferred(self, function: Callable[..., str]) -> Callable[..., str]:
        def call(*args: Any, **kwargs: Any) -> str:
            return self._later(lambda: function(*args, **kwargs))

        return call

    def _later(self, call: Callable[[], str]) -> str:
        self._calls.append(call)
        return f"\ue000late:{len(self._calls) - 1}\ue001"

    def _json_value(self, text: str, key: str) -> Any:
        if isinstance(text, str) and "\ue000" in text:
            return self._later(lambda: str(_json_part(check_deferred(self.complete(text)[0]), key)))
        return _json_part(text, key)


def aws_secret(secret_id: str, cached: bool = True, **client: Any) -> str:
    """Read a secret from AWS Secrets Manager, with the environment's credentials and region.

    Args:
        secret_id: the secret's name or ARN.
        cached: accepted without effect; the secret is read whenever its key is read.
        client: arguments for the client, such as `region_name` and `endpoint_url`.

    Raises:
        ConfigError: the client library is not installed, or the secret cannot be read.
    """
    errors = need("botocore.exceptions", "s3", "aws_secret_var", package="boto3")
    session = need("botocore.session", "s3", "aws_secret_var", package="boto3").get_session()
    client.setdefault("region_name", os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))
    try:
        answer = session.create_client("secretsmanager", **client).get_secret_value(SecretId=secret_id)
    except (errors.BotoCoreError, errors.ClientError) as error:
        raise ConfigError(
            f"AWS Secrets Manager refused the secret '{secret_id}': {error}", code="secret.vault_failed"
        ) from error
    value = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"].decode()
    return str(value)


def azure_secret(name: str) -> str:
    """Read a secret from the Azure Key Vault at AZURE_KEY_VAULT_URL. Untested against Azure.

    Raises:
        ConfigError: the client library is not installed, AZURE_KEY_VAULT_URL is not set, or the secret cannot be read.
    """
    url = os.environ.get("AZURE_KEY_VAULT_URL")
    if not url:
        raise ConfigError(
            "azure_secret_var needs the environment variable AZURE_KEY_VAULT_URL",
            hint="set it to the vault's address, https://NAME.vault.azure.net",
            code="secret.vault_not_configured",
        )
    packages = "pip:azure-identity azure-keyvault-secrets"
    identity = need("azure.identity", packages, "azure_secret_var", package="azure-identity")
    secrets = need("azure.keyvault.secrets", packages, "azure_secret_var", package="azure-keyvault-secrets")
    core = need("azure.core.exceptions", packages, "azure_secret_var", package="azure-core")
    client = secrets.SecretClient(vault_url=url, credential=identity.DefaultAzureCredential())
    try:
        return str(client.get_secret(name).value)
    except core.AzureError as error:
        raise ConfigError(
            f"Azure Key Vault refused the secret '{name}': {error}", code="secret.vault_failed"
        ) from error


def gcp_secret(secret_id: str, project: str | None = None, version: str = "latest") -> str:
    """Read a secret from Google Secret Manager. Untested against Google.

    Args:
        secret_id: the secret's name, or `projects/P/secrets/S` with or without `/versions/V`.
        project: the project's id; default: GOOGLE_CLOUD_PROJECT or GCP_PROJECT_ID.
        version: the secret's version.

    Raises:
        ConfigError: the client library is not installed, no project is set, or the secret cannot be read.
    """
    name = secret_id
    if not name.startswith("projects/"):
        project = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("GCP_PROJECT_ID")
        if not project:
            raise ConfigError(
                "gcp_secret_var needs a project",
                hint="set GOOGLE_CLOUD_PROJECT, or use projects/P/secrets/S",
                code="secret.vault_not_configured",
            )
        name = f"projects/{project}/secrets/{secret_id}"
    if "/versions/" not in name:
        name = f"{name}/versions/{version}"
    package = "google-cloud-secret-manager"
    manager = need("google.cloud.secretmanager", f"pip:{package}", "gcp_secret_var", package=package)
    api = need("google.api_core.exceptions", f"pip:{package}", "gcp_secret_var", package=package)
    auth = need("google.auth.exceptions", f"pip:{package}", "gcp_secret_var", package=package)
    try:
        answer = manager.SecretManagerServiceClient().access_secret_version(name=name)
    except (api.GoogleAPIError, auth.GoogleAuthError) as error:
        raise ConfigError(f"Secret Manager refused the secret '{name}': {error}", code="secret.vault_failed") from error
    return str(answer.payload.data.decode())


def _refuse(function: str, service: str) -> Callable[..., str]:
    def call(*args: Any, **kwargs: Any) -> str:
        raise ConfigError(
            f"{function}: {service} is not supported",
            hint="set an environment variable and use env_var('X'), or use secret('x')",
            code="secret.vault_unknown",
        )

    return call


def _json_part(text: str, key: str) -> Any:
    import json

    try:
        return json.loads(text)[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"json_value: no key '{key}' in a JSON object ({type(error).__name__})",
            code="template.json_key_not_found",
        ) from None
