"""Every example of the document that the product has to make true, as printed there.

What the document leaves out is put above them: imports (`requests`, `pd`, `DataFrame`) and the functions that it only
names. Each runs through the names of Mage and through our own.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator

import pandas as pd
import pytest

from tests.support.batch import SEED, BatchProject, failed
from tests.support.project import Completed, Running

OWN_NAMES = {
    "mage_ai.data_preparation.models.pipeline": "streamline",
    "mage_ai.data_preparation.decorators": "streamline.decorators",
    "mage_ai.settings.repo": "streamline",
    "mage_ai.io.config": "streamline.io",
}

STUBS = """\
import pandas as pd
import requests
from pandas import DataFrame

"""


@pytest.fixture(params=["mage_ai", "streamline"])
def named(request: pytest.FixtureRequest) -> object:
    """Gives an example with the document's names, and with our own."""

    def rename(code: str) -> str:
        if request.param == "streamline":
            for theirs, ours in OWN_NAMES.items():
                code = code.replace(theirs, ours)
            assert "mage_ai" not in code
        return code

    return rename


@pytest.fixture
def my_project(project: BatchProject) -> BatchProject:
    """The project, with `requests` as far as the examples need it, where that is not installed."""
    project.write(
        "requests.py",
        """\
import json
import urllib.request


class Response:
    def __init__(self, data):
        self.data = data

    def json(self):
        return json.loads(self.data)


def get(url):
    import os

    url = url.replace("https://api.example.com", os.environ["API"])
    with urllib.request.urlopen(url) as answer:
        return Response(answer.read())
""",
    )
    return project


@pytest.fixture
def api() -> Iterator[str]:
    """What `https://api.example.com` stands for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([{"id": 1, "amount": 5.0}, {"id": 2, "amount": 7.5}]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def python(project: BatchProject, code: str, *, fails: bool = False) -> Completed:
    """Run a script of the user's."""
    project.write("user_script.py", code)
    done = Running([sys.executable, "-m", "user_script"], project.root, project.env, batch=True).finish()
    assert (done.code != 0) is fails, done
    return done


# Creating a pipeline


def test_creating_a_pipeline(project: BatchProject, named) -> None:
    code = """
import streamline
from mage_ai.data_preparation.models.pipeline import Pipeline, PipelineType

pipeline = Pipeline.create(
    'my_pipeline',
    repo_path='/path/to/project',
    pipeline_type=PipelineType.PYTHON,
    description='My data pipeline',
    tags=['etl', 'production']
)
"""
    python(project, named(code).replace("/path/to/project", str(project.root)))
    folder = project.root / "pipelines" / "my_pipeline"
    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", "metadata.yaml", "requirements.txt"]
    text = (folder / "metadata.yaml").read_text()
    for part in ("name: my_pipeline", "type: python", "description: My data pipeline", "etl", "production"):
        assert part in text
    project.command("run", "my_pipeline").expect(0)


def test_creating_a_project_by_the_command_line(project: BatchProject) -> None:
    project.command("init", "my_project").expect(0)
    root = project.root / "my_project"
    assert (root / "io_config.yaml").is_file()
    assert (root / "pipelines").is_dir()


def my_pipeline(project: BatchProject) -> None:
    """The pipeline of the document's metadata.yaml, with blocks as small as can be."""
    project.write("pipelines/my_pipeline/metadata.yaml", SEED)
    project.write(
        "data_loaders/load_data.py",
        "import pandas as pd\n@data_loader\ndef load_data(*args, **kwargs):\n"
        "    return pd.DataFrame({'id': [1, 2], 'amount': [1.0, 2.0], 'env': kwargs.get('env')})\n\n"
        "@test\ndef test_output(output, *args) -> None:\n    assert output is not None, 'Output is undefined'\n",
    )
    project.write("transformers/transform_data.py", "@transformer\ndef transform(data, *args):\n    return data\n")
    project.write(
        "data_exporters/export_data.py",
        "@data_exporter\ndef export(data, *args):\n    data.to_csv('out.csv', index=False)\n",
    )


def test_the_metadata_of_the_document_runs(project: BatchProject) -> None:
    my_pipeline(project)
    project.command("run", "my_pipeline").expect(0, "completed: 3 completed")
    # The document's commands, with our program's name.
    project.command("run", str(project.root), "my_pipeline", "--test").expect(0, "1 test passed")
    project.command("run", str(project.root), "my_pipeline", "--block-uuid", "transform_data").expect(0)
    given = '{"env": "prod", "api_key": "xxx"}'
    project.command("run", str(project.root), "my_pipeline", "--runtime-vars", given).expect(0)
    assert set(pd.read_csv(project.root / "out.csv")["env"]) == {"prod"}
    stored = project.root / ".streamline" / "data" / "my_pipeline" / "load_data" / "output_0.parquet"
    assert len(pd.read_parquet(stored)) == 2


# Blocks


def test_data_loader(my_project: BatchProject, named, api: str) -> None:
    code = """
import pandas as pd

if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader

@data_loader
def load_data(*args, **kwargs):
    \"\"\"
    Load data from an API endpoint
    \"\"\"
    url = 'https://api.example.com/data'
    response = requests.get(url)
    return pd.DataFrame(response.json())
"""
    my_project.block("load_api_data", "import requests\n" + named(code), type="data_loader")
    my_project.run(env={"API": api}).expect(0)
    assert my_project.output("load_api_data")["amount"].tolist() == [5.0, 7.5]


def test_a_plain_import_of_the_decorator_works_as_well(project: BatchProject, named) -> None:
    code = "from mage_ai.data_preparation.decorators import data_loader\n\n@data_loader\ndef load():\n    return 1\n"
    project.block("load", named(code), type="data_loader")
    project.run().expect(0)
    assert project.output("load") == 1


JOIN = """
# Transformer with multiple upstream blocks
from pandas import DataFrame

if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer

@transformer
def join_data(
    customers: DataFrame,  # From first upstream block
    orders: DataFrame,     # From second upstream block
    *args, **kwargs
) -> DataFrame:
    \"\"\"
    Join customer and order data
    \"\"\"
    return customers.merge(
        orders,
        left_on='customer_id',
        right_on='id',
        how='left'
    )
"""
CUSTOMERS = "pd.DataFrame({'customer_id': [1, 2], 'name': ['a', 'b']})"
ORDERS = "pd.DataFrame({'id': [1], 'total': [9.5]})"


def test_a_transformer_with_two_upstream_blocks(project: BatchProject, named) -> None:
    for name, frame in (("load_customers", CUSTOMERS), ("load_orders", ORDERS)):
        code = f"import pandas as pd\n@data_loader\ndef load(*args, **kwargs):\n    return {frame}\n"
        project.block(name, code, type="data_loader")
    project.block("join_data", named(JOIN), upstream=["load_customers", "load_orders"])
    project.run().expect(0)
    assert project.output("join_data")["total"].tolist()[0] == 9.5


def test_multiple_outputs_arrive_as_separate_arguments(project: BatchProject) -> None:
    code = """
@data_loader
def load_data(*args, **kwargs):
    \"\"\"
    Return multiple dataframes
    \"\"\"
    customers = pd.read_csv('customers.csv')
    orders = pd.read_csv('orders.csv')
    
    # Return tuple for multiple outputs
    return customers, orders
"""
    project.write("customers.csv", "customer_id,name\n1,a\n2,b\n")
    project.write("orders.csv", "customer_id,total\n1,9.5\n")
    project.block("load_data", "import pandas as pd\n" + code, type="data_loader")
    transform = """
@transformer
def transform(customers: DataFrame, orders: DataFrame, *args) -> DataFrame:
    return customers.merge(orders, on='customer_id')
"""
    project.block("transform", "from pandas import DataFrame\n" + transform)
    project.run().expect(0)
    assert project.output("transform").to_dict("records") == [{"customer_id": 1, "name": "a", "total": 9.5}]
    folder = project.root / ".streamline" / "data" / "p" / "load_data"
    assert (folder / "output_0.parquet").is_file()
    assert (folder / "output_1.parquet").is_file()


# Variables and configuration


def test_global_variables(project: BatchProject) -> None:
    code = """
@data_loader
def load_data(*args, **kwargs):
    # Access global variables
    env = kwargs.get('env', 'dev')
    api_key = kwargs.get('api_key')
    
    url = f'https://api.{env}.example.com/data'
    return fetch_data(url, api_key)
"""
    stub = "def fetch_data(url, api_key):\n    return {'url': url, 'api_key': api_key}\n"
    project.block("load_data", stub + code, type="data_loader")
    project.run("--runtime-vars", '{"env": "prod", "api_key": "xxx"}').expect(0)
    assert project.output("load_data") == {"url": "https://api.prod.example.com/data", "api_key": "xxx"}
    project.run().expect(0)
    assert project.output("load_data") == {"url": "https://api.dev.example.com/data", "api_key": None}


IO_CONFIG = """\
default:
  POSTGRES_HOST: localhost
  POSTGRES_PORT: 5432
  POSTGRES_USER: mage
  POSTGRES_PASSWORD: password
  POSTGRES_DB: analytics
"""


def test_io_config_in_a_block(project: BatchProject, named) -> None:
    code = """
from mage_ai.settings.repo import get_repo_path
from mage_ai.io.config import ConfigFileLoader
from os import path

config_path = path.join(get_repo_path(), 'io_config.yaml')
config = ConfigFileLoader(config_path, 'default')

host = config['POSTGRES_HOST']
"""
    project.write("io_config.yaml", IO_CONFIG)
    block = "\n@data_loader\ndef load():\n    return [host, config['POSTGRES_PORT'], config['POSTGRES_DB']]\n"
    project.block("load", named(code) + block, type="data_loader")
    project.run().expect(0)
    assert project.output("load") == ["localhost", 5432, "analytics"]
    # And in any script.
    done = python(project, "import streamline\n" + named(code) + "\nprint(host)\n")
    assert done.out == "localhost\n"


# Testing

TEST = """
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test

@test
def test_output(output: DataFrame, *args) -> None:
    \"\"\"
    Validate block output
    \"\"\"
    assert output is not None, 'Output is undefined'
    assert len(output) > 0, 'Output is empty'
    assert output['amount'].min() >= 0, 'Negative amounts found'
    assert not output['id'].duplicated().any(), 'Duplicate IDs found'
"""


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("{'id': [1, 2], 'amount': [0.0, 1.0]}", None),
        ("{'id': [], 'amount': []}", "Output is empty"),
        ("{'id': [1, 2], 'amount': [0.0, -1.0]}", "Negative amounts found"),
        ("{'id': [1, 1], 'amount': [0.0, 1.0]}", "Duplicate IDs found"),
    ],
)
def test_tests(project: BatchProject, named, frame: str, message: str | None) -> None:
    code = f"{STUBS.replace('import requests', '')}\n@data_loader\ndef load():\n    return pd.DataFrame({frame})\n"
    project.block("load", code + named(TEST), type="data_loader")
    if message is None:
        project.run("--test").expect(0, "1 test passed")
    else:
        failed(project.run("--test"), message)


# Execution modes


EXECUTION = """
import streamline
from mage_ai.data_preparation.models.pipeline import Pipeline

pipeline = Pipeline.get('my_pipeline')
"""
SEQUENTIAL = """
pipeline.execute_sync(
    global_vars={'env': 'prod'},
    run_tests=True
)
"""
PARALLEL = """
import asyncio

async def main():
    await pipeline.execute(
        global_vars={'env': 'test'},
        parallel=True,
        run_tests=True
    )

asyncio.run(main())
"""


def test_sequential_and_parallel_execution(project: BatchProject, named) -> None:
    my_pipeline(project)
    for code, env in ((SEQUENTIAL, "prod"), (PARALLEL, "test")):
        python(project, named(EXECUTION) + code)
        assert set(pd.read_csv(project.root / "out.csv")["env"]) == {env}


@pytest.mark.parametrize("code", [SEQUENTIAL, PARALLEL], ids=["sequential", "parallel"])
def test_execution_raises_what_failed(project: BatchProject, code: str) -> None:
    my_pipeline(project)
    project.write("transformers/transform_data.py", "@transformer\ndef transform(data):\n    raise ValueError('no')\n")
    done = python(project, EXECUTION + code, fails=True)
    assert "streamline.errors.PipelineFailed" in done.err
    assert "transform_data" in done.err


# Advanced features


def test_dynamic_blocks(project: BatchProject) -> None:
    code = """
@data_loader
def load_data(*args, **kwargs):
    # Return list of items to process
    return [
        {'date': '2024-01-01', 'region': 'US'},
        {'date': '2024-01-02', 'region': 'EU'},
        {'date': '2024-01-03', 'region': 'ASIA'},
    ]
"""
    child = """
@transformer
def process_partition(data: dict, *args) -> DataFrame:
    # This block runs once per item
    date = data['date']
    region = data['region']
    return fetch_and_process(date, region)
"""
    stub = "import pandas as pd\nfrom pandas import DataFrame\n"
    stub += "def fetch_and_process(date, region):\n    return pd.DataFrame({'date': [date], 'region': [region]})\n"
    project.block("load_data", code, type="data_loader", configuration={"dynamic": True})
    project.block("process_partition", stub + child)
    project.run().expect(0, "3 calls")
    frame = pd.concat(project.children("process_partition"))
    assert frame["region"].tolist() == ["US", "EU", "ASIA"]


@pytest.mark.parametrize(("rows", "status"), [(1001, "completed"), (1000, "skipped")])
def test_conditional_blocks(project: BatchProject, rows: int, status: str) -> None:
    code = """
@transformer
def should_process(df: DataFrame, *args) -> bool:
    # Return True to execute downstream blocks
    return len(df) > 1000
"""
    load = f"import pandas as pd\n@data_loader\ndef load():\n    return pd.DataFrame({{'id': range({rows})}})\n"
    project.block("load", load, type="data_loader")
    project.block("should_process", "from pandas import DataFrame\n" + code)
    project.block("behind", "@transformer\ndef behind(value, *args):\n    return value\n")
    project.run().expect(0)
    assert project.statuses()["behind"] == status


def test_sql_blocks(project: BatchProject) -> None:
    code = """\
-- data_loader
SELECT 
    customer_id,
    SUM(amount) as total_spent,
    COUNT(*) as order_count
FROM orders
WHERE created_at >= '2024-01-01'
GROUP BY customer_id
"""
    orders = """
    import pandas as pd

    @data_loader
    def load():
        dates = pd.to_datetime(['2024-01-02', '2024-02-01', '2023-12-31'])
        return pd.DataFrame({'customer_id': [1, 1, 2], 'amount': [2.5, 4.0, 8.0], 'created_at': dates})
    """
    project.block("orders", orders, type="data_loader")
    project.block("spent", code, type="data_loader", language="sql", upstream=["orders"])
    project.run().expect(0)
    assert project.output("spent").to_dict("records") == [{"customer_id": 1, "total_spent": 6.5, "order_count": 2}]
