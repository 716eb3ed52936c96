"""Data that names files of this machine or addresses inside its network: refused, whoever uploaded or published it."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Features, Image, Value
from PIL import Image as Pillow

from merging.errors import TaskError
from merging.summaries import describe_task
from merging.tasks import open_task
from tests.loopback_hub import loopback_hub
from tests.merging.test_hub_tasks import CLIENT, jsonl, rows

CARD = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"


def png(shade: int = 200) -> bytes:
    sink = io.BytesIO()
    Pillow.new("L", (8, 8), shade).save(sink, "png")
    return sink.getvalue()


@pytest.fixture
def inside():
    """An address inside the network, and what was asked of it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        do_HEAD = do_GET

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()


def parquet(path: Path, pictures: list[dict]) -> Path:
    """A file whose column of pictures is declared as one, as `datasets` writes it."""
    features = Features({"image": Image(), "label": Value("int64")})
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(pictures, type=kind), "label": [n % 2 for n in range(len(pictures))]})
    pyarrow.parquet.write_table(table.cast(features.arrow_schema), path)
    return path


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_data_file_whose_pictures_lie_elsewhere_is_refused(tmp_path, inside, where):
    address, asked = inside
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    place = str(secret) if where == "local" else f"{address}/latest/meta-data.png"
    (tmp_path / "upload").mkdir()
    path = parquet(tmp_path / "upload" / "rows.parquet", [{"bytes": None, "path": f"{place}?{n}"} for n in range(10)])
    for look in (lambda: describe_task(str(path)), lambda: open_task(str(path)).rows("test")[0]["image"]):
        with pytest.raises(TaskError, match=r"expected pictures inside the data, got .* that are only named"):
            look()
    assert asked == []


def test_a_data_file_that_holds_its_pictures_is_read_whatever_they_were_called(tmp_path):
    held = [{"bytes": png(n), "path": "/home/somebody/3.png" if n % 2 else None} for n in range(10)]
    task = open_task(str(parquet(tmp_path / "rows.parquet", held)))
    assert task.rows("test")[0]["image"].size == (8, 8)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def ask(hub, tmp_path, name: str):
    task = json.dumps({"dataset": name, "splits": {"fisher": "train", "test": "train"}})
    expressions = (f"len(open_task({task}).rows('test'))", f"str(describe_task({{'dataset': '{name}'}}))")
    for number, expression in enumerate(expressions):
        done = hub.in_client(["-c", CLIENT, expression], tmp_path / f"home-{number}")
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


@pytest.mark.parametrize("where", ["absolute", "above", "address", "protocol"])
def test_a_dataset_whose_card_names_files_elsewhere_is_refused(hub, tmp_path, inside, where):
    address, asked = inside
    secret = jsonl(tmp_path / "secrets", {"train": [{"sentence": "password", "label": 1}] * 20}) / "train.jsonl"
    elsewhere = {
        "absolute": str(secret),
        "above": "../../../../secrets/train.jsonl",
        "address": f"{address}/latest/meta-data.jsonl",
        "protocol": f"file://{secret}",
    }[where]
    folder = jsonl(tmp_path / "repository", {"train": rows("train", 20)})
    (folder / "README.md").write_text(CARD.format(json.dumps([{"split": "train", "path": elsewhere}])))
    hub.add(f"lab/{where}", folder, kind="dataset")
    for answer in ask(hub, tmp_path, f"lab/{where}"):
        assert "expected data files of its own" in answer, answer
        assert "password" not in answer
    assert asked == []


def test_a_dataset_on_the_hub_whose_pictures_lie_elsewhere_is_refused(hub, tmp_path, inside):
    address, asked = inside
    (tmp_path / "repository").mkdir()
    parquet(
        tmp_path / "repository" / "train.parquet", [{"bytes": None, "path": f"{address}/{n}.png"} for n in range(10)]
    )
    hub.add("lab/pictures", tmp_path / "repository", kind="dataset")
    answer = next(ask(hub, tmp_path, "lab/pictures"))
    assert "expected pictures inside the data" in answer
    assert asked == []
