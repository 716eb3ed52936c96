"""What is said of known vulnerabilities, by pip-audit itself against a service on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools import audit

FOUND = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-0001"],
    "summary": "A crafted picture runs code.",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@pytest.fixture
def service(monkeypatch, tmp_path):
    """Words for pip-audit that ask a service here, in which `service.known` lists what is vulnerable."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        server.known, server.asked = {}, {}
        server.words = ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}/v1/query"]
        server.words.append(f"--cache-dir={tmp_path / 'cache'}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def explain(monkeypatch, tmp_path):
    """Writes the file of explanations."""

    def write(text: str) -> None:
        monkeypatch.setattr(audit, "EXPLAINED", tmp_path / "advisories.txt")
        audit.EXPLAINED.write_text(text, encoding="utf-8")

    write("# none\n")
    return write


def test_every_package_of_the_app_is_asked_for_in_its_locked_version(service, explain, capsys):
    assert audit.main(service.words) == 0
    lock = dict(line.split("==") for line in audit.LOCK.read_text("utf-8").splitlines() if "==" in line)
    lock = {audit.canonicalize_name(name): version for name, version in lock.items()}
    named = [audit.Requirement(line.split("#")[0]) for line in _lines(audit.REQUIREMENTS)]
    assert {audit.canonicalize_name(one.name) for one in named} <= set(service.asked)
    # What they bring along, too; not what only the tests need.
    assert {"starlette", "jinja2", "tokenizers", "urllib3"} & set(service.asked) >= {
        "starlette",
        "jinja2",
        "tokenizers",
    }
    assert not {"pytest", "playwright", "ruff", "pip-audit"} & set(service.asked)
    wrong = {name: version for name, version in service.asked.items() if lock.get(name, version) != version}
    assert not wrong
    assert f"{len(service.asked)} of {len(service.asked)} packages audited, 0 findings" in capsys.readouterr().out


def test_a_finding_fails_and_says_what_mends_it(service, explain, capsys):
    service.known["pillow"] = [FOUND]
    assert audit.main(service.words) == 1
    said = capsys.readouterr().out
    for words in (
        "pillow",
        "CVE-2026-0001",
        "mended in 99.0",
        "A crafted picture runs code.",
        "1 findings that are not",
    ):
        assert words in said


@pytest.mark.parametrize("one", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-0001"])
def test_a_finding_that_is_explained_passes_and_shows_the_reason(service, explain, capsys, one):
    service.known["pillow"] = [FOUND]
    explain(f"# why\nPillow {one} pictures are only read as PNG\n")
    assert audit.main(service.words) == 0
    assert "pictures are only read as PNG" in capsys.readouterr().out


def test_an_explanation_counts_for_its_own_package_only(service, explain, capsys):
    service.known["pillow"] = [FOUND]
    explain("numpy CVE-2026-0001 another package\n")
    assert audit.main(service.words) == 1
    assert "explains numpy CVE-2026-0001, which is not found any more" in capsys.readouterr().out


def test_an_explanation_needs_a_reason(explain, capsys):
    explain("pillow CVE-2026-0001\n")
    assert audit.main([]) == 2
    assert "advisories.txt, line 1: expected PACKAGE ID REASON" in capsys.readouterr().err


def test_a_service_that_cannot_be_reached_is_said_and_is_no_failure(service, explain, capsys):
    service.shutdown()
    service.server_close()
    assert audit.main(service.words) == 0
    assert capsys.readouterr().out.startswith("NOT AUDITED: the vulnerability service could not be asked")


@pytest.mark.parametrize("answer", [(503, "{}"), (200, "<html>Log in to the network</html>")])
def test_a_service_that_answers_nonsense_is_said_and_is_no_failure(service, explain, capsys, answer):
    service.answer = answer
    assert audit.main(service.words) == 0
    assert capsys.readouterr().out.startswith("NOT AUDITED: the vulnerability service could not be asked")


def test_words_that_pip_audit_does_not_know_fail(explain, capsys):
    assert audit.main(["--no-such-word"]) == 2
    assert "The audit failed: pip-audit gave no report" in capsys.readouterr().err


def test_versions_that_the_service_does_not_know_do_not_count_as_audited():
    report = [{"name": name, "skip_reason": "not found"} for name in "abcdefg"]
    lines, open_findings = audit.judge([*report, {"name": "h", "version": "1", "vulns": []}], {})
    assert lines == [
        "NOT AUDITED, the service does not know the versions of a, b, c, d, e and 2 more.",
        "1 of 8 packages audited, 0 findings that are not explained.",
    ]
    assert open_findings == 0


def test_the_repositorys_explanations_can_be_read():
    assert all(reason.strip() for reason in audit.explained(audit.EXPLAINED).values())


class _Service(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        self.server.asked[name] = asked["version"]
        found = self.server.known.get(name)
        status, body = getattr(self.server, "answer", (200, json.dumps({"vulns": found} if found else {})))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *words):
        pass


def _lines(path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
