"""A page of its own in a process of its own: started, watched, ended."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 120
# Gradio's own: two streams of a session that a reload has ended both take its messages away.
RACE = "del blocks._queue.pending_messages_per_session[session_hash]"
# Gradio's own refusal of a value that its widget cannot hold: told to the visitor, and logged with a traceback.
REFUSED = "gradio.exceptions.Error: "


@dataclass(frozen=True)
class Server:
    """A page that serves: where, and what it wrote so far."""

    url: str
    log_path: Path
    process: subprocess.Popen

    def log(self) -> str:
        """Everything that the server wrote."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def require_alive(self) -> None:
        """Fails, showing the log, if the server has died or told of a bug."""
        assert self.process.poll() is None, f"The server ended with {self.process.returncode}:\n{self.log()[-4000:]}"
        bugs = [end for end in _tracebacks(self.log()) if not end.startswith(REFUSED)] + _logged_bugs(self.log())
        assert not bugs, f"{bugs}\n{self.log()[-4000:]}"


@contextmanager
def serving(
    folder: Path, *, command: tuple[str, ...] = (sys.executable, "app.py"), root: Path = ROOT, **environment: str
) -> Iterator[Server]:
    """`python app.py` on a free port, with caches below `folder` and these environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    port = int(environment.get("GRADIO_SERVER_PORT") or _free_port())
    own = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_IS_E2E_TEST": "1",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "FISHER_CACHE_DIR": str(folder / "fishers"),
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, **own, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}/", log_path, process)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        server.require_alive()
        try:
            with urllib.request.urlopen(server.url, timeout=10) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The page did not serve within {START_S} s:\n{server.log()[-4000:]}")


def _tracebacks(log: str) -> list[str]:
    """The last line of every traceback: what was raised."""
    ends = []
    log = re.sub(r"ERROR: +Exception in ASGI application\n(?:  .*\n)*", lambda of: "" if RACE in of[0] else of[0], log)
    for part in log.split("Traceback (most recent call last):\n")[1:]:
        lines = part.splitlines()
        ends.append(next((line for line in lines if line and not line.startswith(" ")), lines[-1] if lines else ""))
    return ends


def _logged_bugs(log: str) -> list[str]:
    """The lines of JSON that tell of a bug."""
    return [line for line in log.splitlines() if line.startswith("{") and '"level": "ERROR"' in line]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
