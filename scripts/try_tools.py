"""Try what strangers use from where they work: the action, the pre-commit hook, the image.

    python scripts/try_tools.py [action] [hook] [image]

Each is tried in an environment of its own, on a copy of the files that git knows. GitHub, pre-commit and
Docker are not needed: the action's shell steps, the hook's installation and entry, and the RUN lines
of the Dockerfile are run as these would run them. No image is built.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "testdata" / "fashion-mnist"
GRAY = "unit,color=gray,mean=0.5,std=0.5"


def run(command, *, cwd, env=None, code=0):
    found = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if found.returncode != code:
        sys.exit(f"{command}: exit code {found.returncode}\n{found.stdout}{found.stderr}")
    return found.stdout


def checkout(folder: Path, without: tuple[str, ...] = ("testdata/", "tests/")) -> Path:
    """What a clone has, but for some folders."""
    listed = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if not name.startswith(without):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The variables of a shell in a fresh virtual environment."""
    venv.create(folder, with_pip=True)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "CI"}}
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(folder), **more}


def few(folder: Path) -> Path:
    """Two test images of each class."""
    for source in sorted((IMAGES / "test").iterdir()):
        (folder / source.name).mkdir(parents=True)
        for image in sorted(source.iterdir())[:2]:
            shutil.copy(image, folder / source.name)
    return folder


def filled(text: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)


def try_action(work: Path) -> None:
    """The shell steps of action.yml: once with a gate that holds, once with one that fails."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    given = {
        "model": str(ROOT / "testdata" / "squeezenet.onnx"), "data": str(IMAGES / "calibration"),
        "test": str(few(work / "test")), "preprocess": GRAY, "max-drop": "20", "arguments": "--samples 64",
    }  # fmt: skip
    inputs = {key: each.get("default", "") for key, each in action["inputs"].items()} | given
    env = environment(
        work / "python", RUNNER_TEMP=str(work), GITHUB_ACTION_PATH=str(checkout(work / "onnxq.git"))
    )
    place = work / "repository"
    place.mkdir()
    steps = [step for step in action["runs"]["steps"] if "run" in step]

    def take(step, code=0):
        told = {key: filled(value, inputs) for key, value in step.get("env", {}).items()}
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        run(shell, cwd=place, env=env | told, code=code)

    for step in steps:
        take(step)
    made = {path.name for path in place.iterdir()}
    assert made == {"model.int8.onnx", "onnxq-report.html", "onnxq-junit.xml"}, made
    inputs["max-drop"] = "-100"
    take(steps[-1], code=1)


def try_hook(work: Path) -> None:
    """The hook as pre-commit installs it, on a float model and on a file that is no model."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["language"] == "python"
    env = environment(work / "python")
    source = checkout(work / "onnxq.git")
    run(["pip", "install", "--quiet", ".", *hook["additional_dependencies"]], cwd=source, env=env)
    model = str(ROOT / "testdata" / "squeezenet.onnx")
    run([hook["entry"], model], cwd=work, env=env)
    (work / "none.onnx").write_text("no model")
    run([hook["entry"], model, "none.onnx"], cwd=work, env=env, code=3)


def try_image(work: Path) -> None:
    """The RUN lines of the Dockerfile, on the files that its COPY lines name."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    env, place = environment(work / "python"), work / "src"
    place.mkdir()
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *names, target = rest.split()
            for name in names:
                to = place / target / ("" if target == "./" else ".")
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, to / name if target == "./" else to)
        elif word == "RUN":
            run(["sh", "-c", rest], cwd=place, env=env)
    assert lines[-1] == 'ENTRYPOINT ["onnxq"]'
    run(["onnxq", "--version"], cwd=work, env=env)


TRIES = {"action": try_action, "hook": try_hook, "image": try_image}

if __name__ == "__main__":
    for name in sys.argv[1:] or TRIES:
        with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
            TRIES[name](Path(folder))
        print(f"{name}: works")
