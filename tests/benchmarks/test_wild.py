"""benchmarks/wild: its manifest, what feeds the models, the rows, and one run on a tiny model."""

import dataclasses
import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from support.builder import Builder

ROOT = Path(__file__).parent.parent.parent
WILD = ROOT / "benchmarks" / "wild"


@pytest.fixture(scope="module")
def wild():
    """The modules of the benchmark, which import each other by their bare names."""
    names, before = ("makers", "manifest", "rows"), sys.path[:]
    sys.path.insert(0, str(WILD))
    yield {name: importlib.import_module(name) for name in names}
    sys.path[:] = before
    for name in names:
        del sys.modules[name]


@pytest.fixture
def entries(wild):
    return wild["manifest"].read().models


# --- the manifest ------------------------------------------------------------------------------


def test_there_are_twenty_models_or_more_each_with_a_name_of_its_own(entries):
    assert len(entries) >= 20
    assert len({entry.name for entry in entries}) == len(entries)
    assert len({entry.file for entry in entries}) == len(entries)
    assert len({entry.file.package for entry in entries}) >= 10


def test_all_files_have_their_checksum(wild, entries):
    files = [*wild["manifest"].read().pictures, *(entry.file for entry in entries)]
    for file in files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256), file
        assert re.fullmatch(r"[\d.]+", file.version), file


def test_files_of_one_package_do_not_meet_in_the_cache(entries):
    places = [(entry.file.wheel, Path(entry.file.path).name) for entry in entries]
    assert len(set(places)) == len(places)


def test_what_an_entry_says_fits_together(wild, entries):
    for entry in entries:
        assert entry.feeds >= 1 < entry.test
        assert set(entry.states.values()) <= set(entry.inputs)
        assert bool(entry.states) == (entry.steps > 1)
        assert entry.feeds % entry.steps == entry.test % entry.steps == 0
        assert {spec["maker"] for spec in entry.inputs.values()} <= set(wild["makers"].MAKERS)


def test_names_choose(wild, entries):
    found = wild["manifest"].read()
    assert [entry.name for entry in found.named(["magika", "nudenet"])] == ["magika", "nudenet"]
    assert found.named([]) == list(entries)
    with pytest.raises(KeyError, match="magica"):
        found.named(["magica"])


# --- what feeds the models ---------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return [tmp_path / "picture.png"]


def test_each_maker_gives_the_same_array_of_the_right_kind_again(wild, entries, pictures):
    makers = wild["makers"]
    specs = {}
    for entry in entries:
        specs |= {(spec["maker"], len(spec["shape"])): spec for spec in entry.inputs.values()}
    for spec in specs.values():
        one, other, next_ = (
            makers.made(spec, makers.Moment(seed, 0, 1, pictures)) for seed in (3, 3, 4)
        )
        assert one.shape == tuple(spec["shape"])
        assert one.dtype == spec.get("type", "float32")
        assert np.isfinite(one).all()
        assert np.array_equal(one, other)
        if spec["maker"] != "constant":
            assert not np.array_equal(one, next_), spec["maker"]


def test_pixels_become_what_the_package_makes_of_them(wild, pictures):
    makers = wild["makers"]
    Image.new("RGB", (400, 500), (255, 0, 51)).save(pictures[0])
    spec = {"maker": "photo", "shape": [1, 3, 8, 8], "mean": [0.5, 0.25, 0.0], "std": 0.5}
    at = makers.Moment(0, 0, 1, pictures)
    assert np.allclose(makers.made(spec, at)[0, :, 4, 4], [1.0, -0.5, 0.4])
    bgr = spec | {"shape": [1, 8, 8, 3], "layout": "nhwc", "color": "bgr", "mean": 0, "scale": 1.0}
    assert np.allclose(makers.made(bgr, at)[0, 4, 4], [102, 0, 510])


def test_steps_of_a_sequence_are_parts_of_one_recording(wild):
    makers = wild["makers"]
    spec = {"maker": "voice", "shape": [1, 576], "hop": 512, "rate": 16000}
    first, second = (makers.made(spec, makers.Moment(0, step, 3, [])) for step in (0, 1))
    assert np.array_equal(first[0, 512:], second[0, :64])


# --- rows --------------------------------------------------------------------------------------


def test_faults_are_what_the_aim_forbids(wild):
    rows = wild["rows"]
    good = rows.Done(exact=True, quantized=3, possible=4, floats={"why": 1}, sqnr=30.0)

    def of(peer=None, refused="", **runs):
        peers = {} if peer is None else {"onnxruntime": rows.Done(sqnr=peer)}
        return list(rows.faults(rows.Row("m", "p==1", runs | peers, refused=refused)))

    def but(**changes):
        return dataclasses.replace(good, **changes)

    assert of(peer=30.9, equalize=good, gpu=good, cpu=good) == []
    assert of(peer=31.1, cpu=good) == ["m, cpu: 30.0 dB, ONNX Runtime's 31.1 dB"]
    assert of(peer=31.1, gpu=good) == []
    assert of(peer=90.0, cpu=but(sqnr=61.0)) == []
    assert of(cpu=but(megabytes=2049)) == ["m, cpu: 2049 MB"]
    assert of(equalize=but(exact=False)) == ["m, equalize: not exact"]
    assert of(gpu=but(floats={"": 1})) == ["m, gpu: 1 nodes silently float"]
    assert of(gpu=but(quantized=0)) == ["m, gpu: nothing quantized"]
    assert of(gpu=rows.Done("no", 3)) == ["m, gpu: model refused: no"]
    assert of(gpu=rows.Done("no: known", 3), refused="known") == []
    assert of(gpu=rows.Done("killed", -9)) == ["m, gpu: bug or crash: killed"]
    assert of(gpu=rows.Done("stopped after 9 s", None)) == [
        "m, gpu: bug or crash: stopped after 9 s"
    ]


def test_the_table_has_a_cell_for_each_number(wild, tmp_path):
    rows = wild["rows"]
    done = rows.Done(cpu_seconds=2.4, megabytes=300, quantized=3, possible=4, sqnr=30.04)
    runs = {
        "equalize": rows.Done(exact=True), "gpu": done, "cpu": rows.Done("no", 3),
        "onnxruntime": rows.Done("stopped", None),
    }  # fmt: skip
    found = [rows.Row("m", "p==1", runs), rows.Row("n", "p==1", missing="no wheel")]
    lines = rows.table(found, ["gpu", "cpu"], peer=True).splitlines()
    assert {line.count("|") for line in lines} == {14}
    assert lines[2].split(" | ")[1:6] == ["exactly", "3/4", "30.0", "2", "300"]
    assert lines[2].split(" | ")[6] == "model refused"
    assert "no wheel" in lines[3]
    (tmp_path / "rows.json").write_text(json.dumps([dataclasses.asdict(row) for row in found]))
    assert rows.read(tmp_path / "rows.json") == {"m": found[0], "n": found[1]}


# --- a run -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_in_the_cache_gets_its_row(tmp_path):
    b = Builder()
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3))
    onnx.save(b.proto(b.conv(x, 16, 1)), tmp_path / "tiny.onnx")
    content = (tmp_path / "tiny.onnx").read_bytes()
    place = tmp_path / "cache" / "tiny==1.0" / "tiny.onnx"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    (tmp_path / "manifest.toml").write_text(f"""
        [pictures]
        package = "none"
        version = "0"
        files = {{}}
        [[model]]
        name = "tiny"
        package = "tiny"
        version = "1.0"
        path = "tiny/tiny.onnx"
        sha256 = "{hashlib.sha256(content).hexdigest()}"
        feeds = 8
        test = 4
        inputs.x = {{ maker = "normal", shape = [1, 3, 8, 8] }}
    """)
    done = subprocess.run(
        [sys.executable, str(WILD / "run.py"), "--manifest", str(tmp_path / "manifest.toml"),
         "--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "rows.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    runs = row["runs"]
    assert list(runs) == ["equalize", "gpu", "cpu", "onnxruntime"]
    assert runs["equalize"]["exact"]
    assert runs["gpu"]["quantized"] == runs["gpu"]["possible"] == 2
    assert all(runs[name]["sqnr"] > 15 for name in ("gpu", "cpu", "onnxruntime"))
    assert all(20 < runs[name]["megabytes"] < 1500 for name in runs)
