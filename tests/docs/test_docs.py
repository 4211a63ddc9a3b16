"""The documentation tells the truth: links, commands, generated parts, examples, JSON fields."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import click
import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnxq import errors
from onnxq.cli import run, signals
from onnxq.cli.group import COMMANDS
from onnxq.cli.group import onnxq as command_line
from onnxq.records import VERSIONS
from PIL import Image

from support.builder import Builder
from support.written import SENTENCES, reader, trained, write

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SHELLS = {"sh", "bash", "console", "shell", "make", "yaml", "text", ""}
GENERATED = re.compile(r"<!-- generated.*?<!-- end generated -->", re.DOTALL)
HOUSE = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]

every_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


def load_generator() -> ModuleType:
    """scripts/generate_docs.py as a module; scripts/ is no package."""
    spec = importlib.util.spec_from_file_location(
        "generate_docs", ROOT / "scripts" / "generate_docs.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def without_code(text: str) -> str:
    return re.sub(
        r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


# --- links -----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@every_page
def test_relative_links_resolve(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@every_page
def test_lines_of_prose_are_short(page: Path):
    """Tables, code and what is generated are as wide as they are."""
    text = GENERATED.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = [line for line in text.splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in prose if len(line) > 120] == []


def test_every_page_is_in_the_site_and_in_the_index():
    """`make site` fails as well; this tells without mkdocs."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(leaves(site["nav"])) == pages
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)\)", index))
    assert pages - {"README.md"} <= linked


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from leaves(each)


@every_page
def test_pictures_are_wellformed_and_titled(page: Path):
    for name in re.findall(r"\]\(([^)\s]+\.svg)\)", page.read_text(encoding="utf-8")):
        root = ET.fromstring((page.parent / name).read_text(encoding="utf-8"))
        assert root.tag.endswith("svg")
        assert root.find("{http://www.w3.org/2000/svg}title") is not None


def paths_named(page: Path) -> set[str]:
    """Files and folders between backticks; names in capitals stand for a new one's."""
    spans = re.findall(r"`([\w./*-]+(?:\.(?:py|toml|md|sh)|/))`", page.read_text(encoding="utf-8"))
    return {span for span in spans if not re.search(r"[A-Z]{4}", Path(span).stem)}


@pytest.mark.parametrize("page", HOUSE, ids=lambda page: page.name)
def test_files_named_exist(page: Path):
    starts = (ROOT, ROOT / "onnxq", ROOT / "onnxq" / "options", ROOT / "onnxq" / "commands")
    lost = {name for name in paths_named(page) if not any(any(s.glob(name)) for s in starts)}
    assert not lost


# --- generated parts -------------------------------------------------------------------------


def test_generated_parts_are_current():
    generator = load_generator()
    stale = [
        name
        for page, name in zip(PAGES, IDS, strict=True)
        if generator.regenerate(text := page.read_text(encoding="utf-8")) != text
    ]
    assert not stale, "run python scripts/generate_docs.py"


def test_every_command_has_its_help_and_heading():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"\n## onnxq {name}\n" in text
        assert f"<!-- generated: help {name} -->" in text


# --- commands --------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """The words after `onnxq` wherever a shell block calls it."""
    for language, block in code_blocks(GENERATED.sub("", text)):
        if language not in SHELLS:
            continue
        joined = re.sub(r"\\\n\s*", " ", block)
        # Variables of Actions, Make and the shell stand for some number.
        joined = re.sub(r"\$\{\{[^}]*\}\}|\$\([A-Z]+\)|\$\*|\$\{?[A-Za-z_]\w*\}?", "1", joined)
        for call in re.finditer(r"(?:^|[\s/;&|])onnxq +([^\n]*)", joined):
            words = shlex.split(re.split(r"\s(?:[|;>]|&&|# )", call[1])[0])
            if words and not call.group(0).lstrip().startswith("#"):
                yield words


def check_command(words: list[str]) -> None:
    """Parse as click would, without running anything."""
    if words[0].startswith("-"):
        assert words[0] in {"--help", "-h", "--version"}, words
        return
    assert words[0] in COMMANDS, words
    command = command_line.get_command(click.Context(command_line), words[0])
    assert command is not None
    try:
        command.make_context(f"onnxq {words[0]}", words[1:], obj=None)
    except click.exceptions.Exit:
        return
    except click.ClickException as error:
        pytest.fail(f"onnxq {shlex.join(words)}: {error.format_message()}")


@every_page
def test_commands_in_blocks_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Recipes are read while a command line is parsed.
    monkeypatch.chdir(tmp_path)
    for name in ("int8.toml", "again.toml"):
        (tmp_path / name).write_text("[quantize]\n")
    text = page.read_text(encoding="utf-8")
    # $(DATA) of the Makefile recipe holds two options.
    for words in command_lines(text.replace("$(DATA)", "--data images/ --preprocess imagenet")):
        check_command(words)


@every_page
def test_commands_named_inline_exist(page: Path):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for span in re.findall(r"`onnxq ([^`]+)`", text):
        name, *rest = span.split()
        if name.startswith("-") or name.isupper():
            continue
        assert name in COMMANDS, span
        command = command_line.get_command(click.Context(command_line), name)
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        assert {word for word in rest if word.startswith("-")} <= known, span


# --- Python ----------------------------------------------------------------------------------


def tiny_model() -> onnx.ModelProto:
    """Conv + ReLU6, depthwise Conv + ReLU6, Conv, pooling, Gemm: 3×8×8 images, 4 classes."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)

    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 8, 1, 3, 3), weight("w3", 8, 8, 1, 1),
               weight("w4", 4, 8), weight("b4", 4),
               numpy_helper.from_array(np.float32(0), "zero"),
               numpy_helper.from_array(np.float32(6), "six")]  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "stem", pads=[1, 1, 1, 1]),
        node("Clip", ["c1", "zero", "six"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Clip", ["c2", "zero", "six"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3"], ["c3"], "project"),
        node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "w4", "b4"], ["y"], "classifier", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def furnish(folder: Path) -> None:
    """model.onnx, images/ of four classes, data.npz with labels."""
    generator = np.random.default_rng(0)
    onnx.save(tiny_model(), folder / "model.onnx")
    for number in range(24):
        target = folder / "images" / f"{number % 4}_class"
        target.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(target / f"{number}.png")
    x = generator.standard_normal((72, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=np.arange(72) % 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where examples run."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if "```python\n" in p.read_text(encoding="utf-8")],
    ids=lambda page: page.name,
)
def test_python_examples_run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "example"}
    for language, block in code_blocks(text):
        if language == "python":
            line = text[: text.index(block)].count("\n")
            exec(compile("\n" * line + block, str(page), "exec"), names)
    capsys.readouterr()


# --- shell -----------------------------------------------------------------------------------

STAND_INS = {
    "1x3x224x224": "1x3x8x8",
    "--preprocess imagenet": "--preprocess resize=8x8,mean=0.5,std=0.5",
    "'^head/'": "'^classifier'",
    "'^/features/features.0/'": "'^stem'",
}
"""What fits the small model where examples stand for a user's own."""

UNFIT = {ROOT / "docs" / "data.md", *(ROOT / "docs" / "tutorials").glob("*.md")}
"""Pages about images and models of other sizes; scripts/tutorials.py types the tutorials."""


def shell_blocks(page: Path) -> list[str]:
    """The blocks that hold nothing but calls of onnxq."""
    return [
        block
        for language, block in code_blocks(page.read_text(encoding="utf-8"))
        if language == "sh"
        and all(line.startswith(("onnxq ", " ")) for line in block.splitlines())
        and "$" not in block
    ]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples take for granted, made once: other images, calibrations, int8 models."""
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree("images", "test")
        data = ("model.onnx", "--data", "images/", *STAND_INS["--preprocess imagenet"].split())
        for number in (1, 2, 3):
            invoke("calibrate", *data, "--shard", f"{number}/3", "-o", f"part-{number}.calib")
        invoke("calibrate", *data, "-o", "model.calib")
        for target, name in (("gpu", "model.int8.onnx"), ("cpu", "model.cpu.onnx")):
            invoke("quantize", *data, "--target", target, "-o", name)
        Path("int8.toml").write_text('[quantize]\ndata = "images/"\ntarget = "cpu"\n'
                                     'preprocess = "resize=8x8,mean=0.5,std=0.5"\n')  # fmt: skip
    return folder


@pytest.fixture
def workplace(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the furnished folder, for one page."""
    monkeypatch.setenv("SHELL", "/bin/bash")  # none is set where CI runs
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where completion is installed
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(command_line, list(words))
    assert result.exit_code in {0, run.GATE_FAILED}, f"onnxq {shlex.join(words)}: {result.stderr}"
    return result.exit_code, result.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p not in UNFIT and shell_blocks(p)],
    ids=lambda page: page.name,
)
def test_shell_examples_run(page: Path):
    for block in shell_blocks(page):
        text = re.sub(r"\\\n\s*", " ", block)
        for example, fits in STAND_INS.items():
            text = text.replace(example, fits)
        for line in text.splitlines():
            call, _, target = line.partition(" > ")
            words = shlex.split(call, comments=True)[1:]
            code, shown = invoke(*words)
            assert not code or {"--max-drop", "--min-accuracy"} & set(words), line
            if target:
                Path(target).write_text(shown)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda p: p.stem
)
def test_tutorials_install_what_there_is(page: Path, tmp_path: Path):
    """`make tutorials` types them; this is what can be told in a second, without the network."""
    text = "".join(block for language, block in code_blocks(page.read_text()) if language == "sh")
    extras = re.match(r"pip install '\.\[([\w,]+)\]'\n", text)
    assert extras, "a tutorial begins with the installation"
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras[1].split(",")) <= set(known)
    for script in re.findall(r"^python (docs/tutorials/\S+)", text, re.MULTILINE):
        subprocess.run([sys.executable, ROOT / script, tmp_path / "made", "2", "0"], check=True)
        made = tmp_path / "made"
        assert made.is_file() or any(made.iterdir())


@pytest.mark.slow
def test_examples_of_texts_and_audio_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of docs/data.md as they are typed, on a small encoder and on two recordings."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "data.md"
    onnx.save(reader().proto, "encoder.onnx")
    trained(Path("tokenizer.json"))
    write(Path("sentences.txt"), SENTENCES * 3)
    write(Path("questions.jsonl"), SENTENCES, field="question")
    b = Builder(1)
    onnx.save(b.proto(b.head(b.conv(b.op("Reshape", b.input(16000, name="waveform"),
              b.ints(0, 1, 100, 160), shape=(1, 100, 160)), 4, 3))), "speech.onnx")  # fmt: skip
    Path("recordings").mkdir()
    for number in (1, 2):
        with wave.open(f"recordings/{number}.wav", "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            sound = np.random.default_rng(number).normal(0, 3000, 40000)
            file.writeframes(sound.astype(np.int16).tobytes())
    blocks = code_blocks(page.read_text(encoding="utf-8"))
    (function,) = [block for language, block in blocks if language == "python" and "wave" in block]
    Path("speech.py").write_text(function)
    chosen = [
        block for block in shell_blocks(page) if "speech.py" in block or "--tokenizer" in block
    ]
    assert len(chosen) == 2
    for line in "".join(chosen).splitlines():
        code, shown = invoke(*shlex.split(line)[1:])
        assert code == 0
        if "validate" in line:
            assert "encoder.cpu.onnx" in shown


@pytest.mark.slow
def test_makefile_rules_run(workplace: Path):
    """The rules of docs/recipes.md, in a real make."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rules = [block for language, block in code_blocks(text) if language == "make"]
    # The second block is another way to write the first.
    makefile = "\n".join([rules[0], rules[2]])
    for example, fits in STAND_INS.items():
        makefile = makefile.replace(example, fits)
    (workplace / "Makefile").write_text(makefile)
    for name in ("model.calib", "model.int8.onnx"):
        (workplace / name).unlink()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    targets = ["model.report.html", "model.small.onnx"]
    made = subprocess.run(
        ["make", *targets], env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for name in (*targets, "model.calib", "model.int8.onnx"):
        assert (workplace / name).exists(), name
    again = subprocess.run(["make", "-q", *targets], check=False).returncode
    assert again == 0, "make would do it all again"


# --- JSON ------------------------------------------------------------------------------------

BY_NAME = {"not_finite", "folded_batch_norms", "folded_pads", "joined_biases", "metrics",
           "folded_factors", "merged_limits", "moved_activations", "taken_apart", "left_fused",
           "refused", "values"}  # fmt: skip
"""Fields whose keys are names of nodes, tensors or metrics."""

WHOLE = {
    "quantize": {"normalization", "equalization", "absorption", "outputs", "account.speed"},
    "inspect": {"record", "findings", "plan"},
}
"""Fields that the page describes elsewhere, or in words."""

OFTEN_EMPTY = {
    "not_finite.NAME",
    "normalization.folded_batch_norms.NAME",
    "normalization.folded_pads.NAME",
    "normalization.joined_biases.NAME",
    "normalization.folded_factors.NAME",
    "normalization.merged_limits.NAME",
    "normalization.moved_activations.NAME",
    "normalization.narrowed.tensors",
    "normalization.narrowed.difference",
    "normalization.narrowed.samples",
    "normalization.narrowed.random",
    "normalization.taken_apart.NAME",
    "normalization.left_fused.NAME",
    "normalization.plugins[]",
    "rolled_back[]",
    "options.include[]",
    "options.exclude[]",
    "barriers[].node",
    "float_nodes[].node",
    "notes[]",
    "absorption",
    "absorption.refused.NAME",
}


def fields(value: Any, whole: set[str], path: str = "") -> set[str]:
    """The paths of a document's leaves, as the page writes them."""
    name = path.rpartition(".")[2]
    if path in whole:
        return {path}
    if isinstance(value, dict) and name in BY_NAME:
        found = {p for each in value.values() for p in fields(each, whole, f"{path}.NAME")}
        return found or {f"{path}.NAME"}
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        return {p for key, each in value.items() for p in fields(each, whole, prefix + key)}
    if isinstance(value, list):
        return {p for each in value for p in inside(each, whole, f"{path}[]")} or {f"{path}[]"}
    return {path}


def inside(value: Any, whole: set[str], path: str) -> set[str]:
    """The same for an element of a list; pairs such as [1, 4] are one leaf."""
    return fields(value, whole, path) if isinstance(value, dict) else {path}


def documented(command: str) -> set[str]:
    """The fields in the table of the command's section."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    section = text.split(f"\n## onnxq {command}\n")[1].split("\n## ")[0]
    table = section.split("| field | meaning |\n")[1]
    return {
        field
        for line in table.splitlines()[1:]
        if line.startswith("|")
        for field in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def document(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command_line, [*arguments, "--json", "-q"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert (found.pop("schema"), found.pop("version")) == (
        f"onnxq/{arguments[0]}",
        VERSIONS.get(arguments[0], 1),
    )
    return found


def test_json_fields_are_documented(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onnxq.commands.tuning_search.SECONDS", 0.0)
    calls = {
        "calibrate": ("calibrate", "model.onnx", "--data", "data.npz", "-o", "model.calib"),
        "merge": ("merge", "model.calib", "-o", "whole.calib"),
        "equalize": ("equalize", "model.onnx", "--data", "data.npz", "-o", "equalized.onnx",
                     "--absorb-bias"),
        "quantize": ("quantize", "model.onnx", "--data", "data.npz", "-o", "model.int8.onnx",
                     "--max-drop", "100", "--validate-data", "data.npz", "--rest", "fp16",
                     "--mixed", "10%"),
        "tune": ("tune", "model.onnx", "--data", "data.npz", "--validate-data", "data.npz",
                 "--target", "cpu", "--scheme", "w8", "--max-drop", "100", "-o", "best.onnx"),
        # On `cpu` a node besides the layers takes and gives integers; the first is float.
        "emulate": ("emulate", "model.cpu.onnx", "--data", "data.npz", "-o", "outputs.npz",
                    "--compare", "cpu", "--saturate"),
        "validate": ("validate", "model.onnx", "model.int8.onnx", "--data", "data.npz",
                     "--max-drop", "100", "--layers"),
        "bench": ("bench", "model.onnx", "--profile", "--seconds", "0"),
        "inspect": ("inspect", "model.int8.onnx", "--kernels"),
        "explain": ("explain", "model.int8.onnx", "depthwise"),
        "report": ("report", "model.onnx", "model.int8.onnx", "--data", "data.npz",
                   "--max-drop", "100", "-o", "report.html"),
        "doctor": ("doctor",),
        "completion": ("completion", "bash"),
    }  # fmt: skip
    assert set(calls) == set(COMMANDS)
    document(
        "quantize", "model.onnx", "--data", "data.npz", "--target", "cpu", "--exclude", "stem",
        "-o", "model.cpu.onnx",
    )  # fmt: skip
    for command, call in calls.items():
        found = fields(document(*call), WHOLE.get(command, set()))
        told = documented(command)
        assert found <= told, f"{command}: not documented"
        assert told <= found | OFTEN_EMPTY, f"{command}: documented but not there"


def test_exit_codes_are_documented():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = text.split("## Exit codes")[1].split("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    raised = {
        each.exit_code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.OnnxqError)
    }
    others = {
        0,
        run.GATE_FAILED,
        run.USAGE,
        run.BUG,
        run.BROKEN_PIPE,
        *(128 + n for n in signals.STOPS),
    }
    assert raised | others == codes
