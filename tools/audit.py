"""Looks up what the app installs among known vulnerabilities: `make audit`, or `python -m tools.audit`.

The versions are the tested lock's, of the packages that requirements.txt leads to on this machine. Further words go to
pip-audit, `--vulnerability-service osv` for one. A finding fails unless tools/advisories.txt explains it. A service that
cannot be reached, or that does not know a version, is told and is no failure.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
LOCK = ROOT / "tests" / "constraints.txt"
EXPLAINED = ROOT / "tools" / "advisories.txt"
TIMEOUT_S = 600  # for a hundred questions; pip-audit itself gives up on each after 15
# How the last line of pip-audit begins where its service is at fault, and there is no report.
NO_ANSWER = re.compile(
    r"requests\.exceptions\.|urllib3\.exceptions\.|\S*(ConnectionError|ServiceError)\b|.*Could not connect to"
)


class AuditError(Exception):
    """What is wrong with the audit itself, not with a package."""


class NoAnswerError(Exception):
    """The vulnerability service could not be asked."""


def app_packages(requirements: Path, lock: Path) -> dict[str, str]:
    """Every package that the app installs here, with its version in the lock, or the installed one where it has none."""
    pinned = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in _read(lock)}
    versions, seen, waiting = {}, set(), _read(requirements)
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            versions[name] = pinned.get(name) or metadata.version(name)
            further = map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:
            raise AuditError(f"{name}: expected it to be installed, got nothing. Run `make audit`.") from None
        waiting += [one for one in further if _applies(one, extras)]
    return dict(sorted(versions.items()))


def explained(path: Path) -> dict[tuple[str, str], str]:
    """The advisories that are known and why they do not matter: (package, id) -> reason."""
    reasons = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 3:
            raise AuditError(
                f"{path.name}, line {number}: expected PACKAGE ID REASON, got {line!r}. Say why it does not matter."
            )
        reasons[canonicalize_name(words[0]), words[1]] = words[2]
    return reasons


def look_up(packages: dict[str, str], words: list[str]) -> list[dict]:
    """What pip-audit reports of each package. Raises: NoAnswerError, AuditError."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as wanted:
        wanted.writelines(f"{name}=={version}\n" for name, version in packages.items())
        wanted.flush()
        # The list is complete and exact: pip has nothing to resolve, and nothing is installed.
        fixed = ["--requirement", wanted.name, "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
        command = [sys.executable, "-m", "pip_audit", *fixed, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"pip-audit had no answer within {TIMEOUT_S} s") from None
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        kind = NoAnswerError if NO_ANSWER.match(last) else AuditError
        raise kind(f"pip-audit gave no report: {last[:300]}") from None


def judge(report: list[dict], reasons: dict[tuple[str, str], str]) -> tuple[list[str], int]:
    """The lines to print, and how many findings are not explained."""
    lines, open_findings, used = [], 0, set()
    for package in report:
        for finding in package.get("vulns", ()):
            ids = [finding["id"], *finding["aliases"]]
            known = next((key for one in ids if (key := (canonicalize_name(package["name"]), one)) in reasons), None)
            used.add(known)
            open_findings += known is None
            mended = ", ".join(finding["fix_versions"]) or "no version yet"
            lines.append(
                f"{package['name']} {package['version']}: {' '.join(ids)}, mended in {mended}: "
                f"{reasons[known] if known else finding['description'][:300]}"
            )
    audited = {canonicalize_name(package["name"]) for package in report if "skip_reason" not in package}
    unknown = sorted({package["name"] for package in report if "skip_reason" in package})
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        lines.append(f"NOT AUDITED, the service does not know the versions of {', '.join(unknown[:5])}{more}.")
    stale = [f"{name} {one}" for name, one in sorted(set(reasons) - used) if name in audited]
    lines += [f"{EXPLAINED.name} explains {one}, which is not found any more: remove the line." for one in stale]
    lines.append(f"{len(audited)} of {len(report)} packages audited, {open_findings} findings that are not explained.")
    return lines, open_findings


def _read(path: Path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [one for line in lines if line and _applies(one := Requirement(line), frozenset())]


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def main(words: list[str]) -> int:
    """Prints the findings; 1 where one is not explained, 2 where the audit itself is at fault."""
    try:
        reasons = explained(EXPLAINED)
        report = look_up(app_packages(REQUIREMENTS, LOCK), words)
    except NoAnswerError as error:
        print(f"NOT AUDITED: the vulnerability service could not be asked, which is no failure. {error}")
        return 0
    except AuditError as error:
        print(f"The audit failed: {error}", file=sys.stderr)
        return 2
    lines, open_findings = judge(report, reasons)
    print("\n".join(lines))
    if open_findings:
        print("Raise the version in tests/constraints.txt, or explain it in tools/advisories.txt.")
    return 1 if open_findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
