"""Connection profiles as block files and scripts read them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.io import ConfigFileLoader, ConfigKey, EnvironmentVariableLoader
from streamline.io.config import BaseConfigLoader, use_renderer
from streamline.project.project import Project
from streamline.project.render import Renderer
from tests.support.failures import refuses

# Of the shape that Mage's own file has: environment variables that are not set, a mapping in the
# middle, braces that are no template, sentences as values, nulls, a nested system, comments behind values.
LIKE_THE_TEMPLATE = """\
version: 0.1.1
default:
  # Keep what you use.
  AWS_ACCESS_KEY_ID: "{{ env_var('AWS_ACCESS_KEY_ID') }}"
  AWS_SECRET_ACCESS_KEY: "{{ env_var('AWS_SECRET_ACCESS_KEY') }}"
  AWS_SESSION_TOKEN: a token (for temporary credentials)
  AWS_REGION: eu-west-1
  AIRTABLE_ACCESS_TOKEN: at
  AZURE_CLIENT_ID: "{{ env_var('AZURE_CLIENT_ID') }}"
  AZURE_STORAGE_ACCOUNT_NAME: "{{ env_var('AZURE_STORAGE_ACCOUNT_NAME') }}"
  CLICKHOUSE_PASSWORD: null
  CLICKHOUSE_PORT: 8123
  DRUID_PATH: /druid/v2/sql/
  DUCKDB_DATABASE: warehouse
  DUCKDB_SCHEMA: main
  GOOGLE_SERVICE_ACC_KEY:
    type: service_account
    private_key: "-----BEGIN PRIVATE KEY-----\\nlines\\n-----END_PRIVATE_KEY"
    token_uri: "https://oauth2.example/token"
  GOOGLE_SERVICE_ACC_KEY_FILEPATH: "/etc/keys/google.json"
  GOOGLE_LOCATION: EU # may be left out
  MONGODB_CONNECTION_STRING: "mongodb://{username}:{password}@{host}:{port}/"
  MSSQL_DRIVER: "ODBC Driver 18 for SQL Server"
  MYSQL_HOST: db.example
  MYSQL_PORT: 3306
  POSTGRES_CONNECT_TIMEOUT: 10
  POSTGRES_DBNAME: shop
  POSTGRES_SCHEMA: public # may be left out
  POSTGRES_HOST: pg.example
  POSTGRES_PORT: 5432
  REDSHIFT_HOST: name.cluster.eu-west-1.redshift.example
  SNOWFLAKE_ACCOUNT: id.region
  SNOWFLAKE_DEFAULT_WH: null                  # may be left out
  SNOWFLAKE_TIMEOUT: null                     # seconds
  trino:
    catalog: postgresql                       # any
    http_headers:
      X-Something: 'a=b'
    session_properties:
      acc01.optimize_locality_enabled: false
    port: 8080
  WEAVIATE_ENDPOINT: https://weaviate.example
"""


@pytest.fixture(autouse=True)
def no_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_ID", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    yield
    use_renderer(None)


def write(folder: Path, text: str) -> Path:
    path = folder / "io_config.yaml"
    path.write_text(text)
    return path


def test_a_file_like_mages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ConfigFileLoader(write(tmp_path, LIKE_THE_TEMPLATE), "default")
    assert config.version == "0.1.1"
    assert config["POSTGRES_PORT"] == 5432
    assert config[ConfigKey.POSTGRES_HOST] == "pg.example"
    assert config["MONGODB_CONNECTION_STRING"] == "mongodb://{username}:{password}@{host}:{port}/"
    assert config["GOOGLE_SERVICE_ACC_KEY"]["private_key"].splitlines()[1] == "lines"
    assert config["trino"]["session_properties"] == {"acc01.optimize_locality_enabled": False}
    assert config["CLICKHOUSE_PASSWORD"] is None
    with refuses("environment_variable.not_set", "AWS_ACCESS_KEY_ID"):
        config["AWS_ACCESS_KEY_ID"]
    assert "AWS_ACCESS_KEY_ID" in config
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    assert ConfigFileLoader(tmp_path / "io_config.yaml")["AWS_ACCESS_KEY_ID"] == "AKIA"


def test_it_is_a_mapping(tmp_path: Path) -> None:
    config = ConfigFileLoader(write(tmp_path, "default: {POSTGRES_HOST: a, POSTGRES_DB: b}\n"))
    assert dict(config) == {"POSTGRES_HOST": "a", "POSTGRES_DB": "b"}
    assert (list(config.keys()), len(config)) == (["POSTGRES_HOST", "POSTGRES_DB"], 2)
    assert config.get(ConfigKey.POSTGRES_SCHEMA) is None
    assert config.get("POSTGRES_SCHEMA", "public") == "public"
    assert ConfigKey.POSTGRES_DB in config
    assert ConfigKey.POSTGRES_PORT not in config


def test_what_is_not_there_is_a_key_error_that_helps(tmp_path: Path) -> None:
    config = ConfigFileLoader(write(tmp_path, "default: {POSTGRES_HOST: a}\n"))
    with pytest.raises(KeyError) as caught:
        config["POSTGRES_HOSTS"]
    assert isinstance(caught.value, ConfigError)
    assert "the profile 'default' has no 'POSTGRES_HOSTS'" in str(caught.value)
    assert "'POSTGRES_HOST'?" in str(caught.value)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 0.1.1\ndefault: {A: 1}\nprod: {A: 2}\n")
    assert ConfigFileLoader(path, "prod")["A"] == 2
    with refuses("profile.not_found", "'staging'") as caught:
        ConfigFileLoader(path, "staging")
    assert "io_config.yaml" in str(caught.value)
    assert "profiles: default, prod" in str(caught.value)
    with refuses("file.not_found"):
        ConfigFileLoader(tmp_path / "other.yaml")


def test_the_nested_form(tmp_path: Path) -> None:
    config = ConfigFileLoader(
        write(
            tmp_path,
            """\
default:
  PostgreSQL: {database: shop, user: reader, password: "{{ env_var('NOT_SET_HERE') }}", host: pg.example, port: 5432}
  AWS:
    region: eu-west-1
    access_key_id: AKIA
    Redshift: {database: dw, user: u, password: p, cluster_identifier: c}
  BigQuery: {path_to_credentials: key.json}
  Duck DB: {database: a.duckdb, motherduck_token: t}
  Snowflake: {warehouse: wh, database: db, private_key_path: k.pem}
""",
        )
    )
    assert config["POSTGRES_DBNAME"] == "shop"
    assert config["POSTGRES_HOST"] == "pg.example"
    with refuses("environment_variable.not_set", "NOT_SET_HERE"):
        config["POSTGRES_PASSWORD"]
    assert config.get("POSTGRES_SCHEMA") is None
    expected = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "REDSHIFT_DBNAME": "dw",
        "REDSHIFT_CLUSTER_ID": "c",
        "REDSHIFT_TEMP_CRED_USER": "u",
        "GOOGLE_SERVICE_ACC_KEY_FILEPATH": "key.json",
        "DUCKDB_DATABASE": "a.duckdb",
        "MOTHERDUCK_TOKEN": "t",
        "SNOWFLAKE_DEFAULT_WH": "wh",
        "SNOWFLAKE_DEFAULT_DB": "db",
        "SNOWFLAKE_PRIVATE_KEY_PATH": "k.pem",
    }
    assert {key: config[key] for key in expected} == expected
    assert set(expected) < set(config)


def test_settings_given_as_they_are() -> None:
    config = ConfigFileLoader(config={"POSTGRES_HOST": "a", "AWS": {"region": "r"}})
    assert (config["POSTGRES_HOST"], config["AWS_REGION"]) == ("a", "r")


@pytest.mark.parametrize(
    "call",
    ["aws_secret_var('db')", "azure_secret_var('db')", "gcp_secret_var('db')", "vault_secret_var('db', 'k')"],
)
def test_secrets_of_other_services_matter_when_they_are_read(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_KEY_VAULT_URL", "GOOGLE_CLOUD_PROJECT", "GCP_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    # Neither a file of credentials nor a service that hands them out is to be asked.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    text = f"""\
default:
  POSTGRES_HOST: localhost
  POSTGRES_PASSWORD: "{{{{ {call} }}}}"
  NESTED: {{{{ json_value({call}, 'host') }}}}
"""
    config = ConfigFileLoader(write(tmp_path, text))
    assert config["POSTGRES_HOST"] == "localhost"
    assert "POSTGRES_PASSWORD" in config
    for key, line in (("POSTGRES_PASSWORD", 3), ("NESTED", 4)):
        with pytest.raises(ConfigError) as caught:
            config[key]
        assert str(caught.value.where).endswith(f"io_config.yaml:{line}")
        assert call.partition("_")[0] in str(caught.value).lower()


def test_json_value_of_an_unset_variable_waits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "default:\n  A: 1\n  HOST: \"{{ json_value(env_var('DB_JSON'), 'host') }}\"\n")
    config = ConfigFileLoader(path)
    assert config["A"] == 1
    with refuses("environment_variable.not_set", "DB_JSON"):
        config["HOST"]
    monkeypatch.setenv("DB_JSON", '{"host": "pg"}')
    assert ConfigFileLoader(path)["HOST"] == "pg"


def test_in_a_block_the_runs_variables_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "streamline.yaml").write_text("name: p\nvariables: {region: eu}\n")
    write(tmp_path, "default: {HOST: \"{{ variables('region') }}.example\", PASSWORD: hunter22}\n")
    monkeypatch.chdir(tmp_path)
    assert ConfigFileLoader()["HOST"] == "eu.example"
    project = Project.open(tmp_path)
    use_renderer(Renderer(project, project.variables, runtime={"region": "us"}))
    assert ConfigFileLoader("io_config.yaml", "default")["HOST"] == "us.example"
    assert project.secrets.masker.mask("it is hunter22") == "it is ********"


def test_without_a_path_the_projects_file_is_read_from_any_folder_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "streamline.yaml").write_text("name: p\n")
    (tmp_path / "utils").mkdir()
    write(tmp_path, "default: {A: 1}\n")
    monkeypatch.chdir(tmp_path / "utils")
    assert ConfigFileLoader()["A"] == 1


def test_in_a_plain_script(tmp_path: Path) -> None:
    write(tmp_path, "default: {PASSWORD: \"{{ secret('pg') }}\", N: {{ env_var('N', 3) }}}\n")
    script = "from streamline.io import ConfigFileLoader; c = ConfigFileLoader(); print(c['PASSWORD'], c['N'] + 1)"
    environment = {"PATH": "/usr/bin:/bin", "STREAMLINE_SECRET_PG": "s3cret"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["s3cret", "4"], "")


def test_the_environment_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "pg")
    monkeypatch.delenv("POSTGRES_PORT", raising=False)
    config = EnvironmentVariableLoader()
    assert config[ConfigKey.POSTGRES_HOST] == "pg"
    assert config.get("POSTGRES_PORT") is None
    assert "POSTGRES_PORT" not in config
    with pytest.raises(KeyError, match="POSTGRES_PORT"):
        config["POSTGRES_PORT"]


def test_a_loader_written_for_mage() -> None:
    class Own(BaseConfigLoader):
        def contains(self, key: str, **kwargs: object) -> bool:
            return key == "A"

        def get(self, key: str, **kwargs: object) -> object:  # type: ignore[override]
            return 1 if key == "A" else None

    own = Own()
    assert own["A"] == 1
    assert "A" in own
    with pytest.raises(KeyError):
        own["B"]


def test_every_key_is_its_own_name() -> None:
    assert all(str(key) == key.name == key.value for key in ConfigKey)
    assert {"POSTGRES_DB", "SQLITE_DATABASE", "SQLALCHEMY_URL", "SNOWFLAKE_ROLE"} <= set(ConfigKey)
