"""What a stranger installs: metadata, extras, the release, and life without ONNX Runtime."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxq
import pytest
import tomllib
from onnxq.cli.group import COMMANDS

from support.testdata import uneven

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- metadata ----------------------------------------------------------------------------------


def brings_a_runtime(requirements: list[str]) -> bool:
    names = {re.match(r"[\w.-]+", each)[0].lower() for each in requirements}
    return bool(
        {name for name in names if name.startswith("onnxruntime")} - {"onnxruntime-extensions"}
    )


def test_only_the_extras_for_it_bring_an_onnx_runtime():
    assert not brings_a_runtime(PROJECT["dependencies"])
    bring = {name for name, requirements in EXTRAS.items() if brings_a_runtime(requirements)}
    assert {"cpu", "gpu"} <= bring
    assert not {"test", "lint", "fast", "text", "detection", "hdf5", "parquet", "dask"} & bring


def test_no_message_installs_onnxq_by_a_name_that_no_index_has():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "onnxq").rglob("*.py")]
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in pages
        for match in re.finditer(
            r"pip install (-\S+ )*['\"]?onnxq\b|onnxq\[\w+\]", page.read_text(encoding="utf-8")
        )
    ]
    assert not found


# --- release -----------------------------------------------------------------------------------


def test_a_release_dates_what_was_unreleased():
    release = script("release")
    text = "# Changelog\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0]\n\n- First.\n"
    assert release.notes(text) == "- New."
    after = release.dated(text, "0.2.0", "2030-01-02")
    assert release.notes(after) == ""
    assert "## [Unreleased]\n\n## [0.2.0] - 2030-01-02\n\n- New.\n\n## [0.1.0]" in after


def test_a_release_commits_tags_and_builds(tmp_path):
    """In a small repository with a builder of its own: the real one is what `make package` runs."""
    for name in ("scripts", "onnxq"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "scripts" / "release.py", tmp_path / "scripts")
    (tmp_path / "scripts" / "check_package.py").write_text("print('built')\n")
    (tmp_path / "onnxq" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n- New.\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def release(version):
        return subprocess.run(
            [sys.executable, "scripts/release.py", version], cwd=tmp_path, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    git("init", "-q")
    git("config", "user.name", "a")
    git("config", "user.email", "a@b")
    git("add", "-A")
    git("commit", "-qm", "first")
    refused = release("0.0.9").stderr
    assert "0.0.9 comes before 0.1.0" in refused
    assert "no [project.urls]" in refused
    (tmp_path / "pyproject.toml").write_text("[project.urls]\n")
    assert "not committed" in release("0.2.0").stderr
    git("commit", "-qam", "urls")
    done = release("0.2.0")
    assert done.returncode == 0, done.stderr
    assert git("tag") == "v0.2.0"
    assert '"0.2.0"' in git("show", "v0.2.0:onnxq/__init__.py")
    assert "already" in release("0.2.0").stderr


# --- without ONNX Runtime ----------------------------------------------------------------------

WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from onnxq.cli import main
sys.exit(main())
"""


@pytest.fixture
def without(tmp_path):
    """Runs a command in a process where no ONNX Runtime can be imported."""
    onnxq.save(uneven(), tmp_path / "m.onnx")

    def run(*words):
        return subprocess.run(
            [sys.executable, "-c", WITHOUT, *words], cwd=tmp_path, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "m.onnx", "--data", "random:4", "-o", "m.calib"),
        ("equalize", "m.onnx", "-o", "e.onnx"),
        ("quantize", "m.onnx", "--data", "random:4", "-o", "q.onnx"),
        ("validate", "m.onnx", "m.onnx", "--data", "random:4"),
        ("emulate", "m.onnx", "--data", "random:4", "-o", "y.npz"),
    ],
    ids=lambda words: words[0],
)
def test_without_onnx_runtime_commands_say_what_to_type(without, tmp_path, words):
    found = without(*words)
    (line,) = found.stderr.splitlines()
    assert found.returncode == 2
    assert line == (
        "error: ONNX Runtime is not installed "
        "(pip install onnxruntime, or onnxruntime-gpu for NVIDIA's GPUs)"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_without_onnx_runtime_the_rest_works(without):
    assert without("inspect", "m.onnx").returncode == 0
    told = without("doctor")
    assert told.returncode == 0
    assert told.stdout.startswith("ready for --target cpu: no: ONNX Runtime is not installed (pip")
    for command in COMMANDS:
        assert without(command, "--help").returncode == 0
