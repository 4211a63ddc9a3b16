"""Tag a version and build it.

    python scripts/release.py 0.2.0          # checks, commits version and changelog, tags, builds dist/
    python scripts/release.py 0.2.0 --check  # only the checks

Nothing is pushed or uploaded; the last lines say what to type for that.
"""

import argparse
import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = "onnxq/__init__.py"
VERSION = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
UNRELEASED = "## [Unreleased]"


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def parts(version: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version!r} is no version such as 0.2.0")
    return tuple(map(int, version.split(".")))


def faults(version: str) -> list[str]:
    """What stands in the way."""
    now = VERSION.search((ROOT / PLACE).read_text(encoding="utf-8"))
    found = []
    if now is None or parts(version) < parts(now[1]):
        found.append(f"{version} comes before {now and now[1]}")
    if git("status", "--porcelain"):
        found.append("there are changes that are not committed")
    if f"v{version}" in git("tag", "--list").split():
        found.append(f"v{version} is tagged already")
    if not notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        found.append(f"CHANGELOG.md says nothing under {UNRELEASED}")
    if "[project.urls]" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8"):
        found.append(
            "pyproject.toml has no [project.urls]: say where the repository is (Source, Issues)"
        )
    return found


def notes(changelog: str) -> str:
    """What the changelog says of the version to come."""
    _, _, rest = changelog.partition(UNRELEASED)
    return rest.partition("\n## [")[0].strip()


def dated(changelog: str, version: str, day: str) -> str:
    """The changelog with what was unreleased under the version."""
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {day}", 1)


def write(version: str) -> None:
    place, changelog = ROOT / PLACE, ROOT / "CHANGELOG.md"
    place.write_text(
        VERSION.sub(f'__version__ = "{version}"', place.read_text(encoding="utf-8")), "utf-8"
    )
    day = dt.datetime.now(dt.timezone.utc).date().isoformat()
    changelog.write_text(dated(changelog.read_text(encoding="utf-8"), version, day), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--check", action="store_true", help="only the checks")
    asked = parser.parse_args()
    if found := faults(asked.version):
        sys.exit("\n".join(found))
    if asked.check:
        return
    write(asked.version)
    git("commit", "--all", "--message", f"Version {asked.version}")
    subprocess.run([sys.executable, "scripts/check_package.py"], cwd=ROOT, check=True)
    git("tag", "--annotate", f"v{asked.version}", "--message", f"Version {asked.version}")
    print(f"git push origin HEAD v{asked.version}")
    print("python -m twine upload dist/*")


if __name__ == "__main__":
    main()
