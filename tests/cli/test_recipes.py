"""Recipes: what a file carries makes the same file again; what makes no sense is said."""

import onnxq as library
import pytest
import tomllib
from onnxq.model.recipes import recorded_recipe

from support.cli_case import Case, run

OPTIONS = ("--target", "cpu", "--ranges", "minmax", "--exclude", "^add$", "--weights", "per-tensor",
           "--no-absorb-bias", "--samples", "20")  # fmt: skip


def test_a_recipe_makes_the_same_bytes_again(case: Case):
    made = run("quantize", case.model, "--data", case.data, "-o", case.out, *OPTIONS)
    assert made.code == 0, made.err
    text = run("inspect", case.out, "--recipe").out
    recipe, again = case.folder / "recipe.toml", case.folder / "again.onnx"
    recipe.write_text(text)
    table = tomllib.loads(text)["quantize"]
    assert table["data"] == str(case.data)
    assert table["exclude"] == ["^add$"]
    assert (table["absorb-bias"], table["equalize"], table["samples"]) == (False, True, 20)
    assert "output" not in table
    assert run("quantize", case.model, "--recipe", recipe, "-o", again).code == 0
    assert again.read_bytes() == case.out.read_bytes()
    assert run("inspect", again, "--recipe").out == text
    assert run("inspect", again, "--json").json["recipe"] == text


def test_the_command_line_wins_over_the_recipe(case: Case):
    recipe = case.folder / "recipe.toml"
    recipe.write_text(f'[quantize]\ntarget = "cpu"\nranges = "minmax"\ndata = "{case.data}"\n')
    result = run("quantize", case.model, "--recipe", recipe, "--target", "gpu", "-o", case.out)
    assert result.code == 0, result.err
    record = run("inspect", case.out, "--json").json
    assert record["target"] == "gpu"
    assert record["record"]["options"]["ranges"] == "minmax"


def test_equalize_has_recipes_and_quantize_adds_its_own(case: Case):
    equalized, again = case.folder / "equalized.onnx", case.folder / "again.onnx"
    made = ("--data", case.data, "--relu6", "per-channel")
    assert run("equalize", case.model, *made, "-o", equalized).code == 0
    assert run("quantize", equalized, "--data", case.data, "-o", case.out).code == 0
    recipe = case.folder / "recipe.toml"
    recipe.write_text(run("inspect", case.out, "--recipe").out)
    assert set(tomllib.loads(recipe.read_text())) == {"equalize", "quantize"}
    assert run("equalize", case.model, "--recipe", recipe, "-o", again).code == 0
    assert again.read_bytes() == equalized.read_bytes()


def test_preprocessing_may_be_a_table(case: Case):
    recipe = case.folder / "recipe.toml"
    recipe.write_text(
        f'[quantize]\ndata = "{case.images}"\n'
        "[quantize.preprocess]\nresize = 8\ncrop = 8\nmean = [0.5, 0.4, 0.3]\nstd = 0.5\n"
    )
    result = run("quantize", case.model, "--recipe", recipe, "-o", case.out)
    assert result.code == 0, result.err
    carried = tomllib.loads(recorded_recipe(library.load(case.out)))["quantize"]
    assert carried["preprocess"] == "resize=8,crop=8,mean=0.5:0.4:0.3,std=0.5"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[quantize]\ntarge = "cpu"\n', "unknown key 'targe': did you mean 'target'?"),
        ('[quantise]\ntarget = "cpu"\n', "did you mean 'quantize'?"),
        ('target = "cpu"\n', "'target' is no table of a command such as [quantize]"),
        ('[equalize]\nscales = "real"\n', "it has no table [quantize]"),
        (
            "[quantize]\ntarget = 3\n",
            "target must be auto, gpu, cpu, qnn, openvino, web, cpu-arm64, gpu-dla or the path of a .toml file, not 3",
        ),
        ('[quantize]\nequalize = "yes"\n', "equalize must be true or false, not 'yes'"),
        ("[quantize]\nsamples = 2.5\n", "samples must be a whole number of at least 1, not 2.5"),
        ("[quantize]\nmax-drop = true\n", "max-drop must be a number, not True"),
        ("[quantize]\nexclude = [1]\n", "exclude must be a regular expression, not 1"),
        (
            '[quantize]\ntarget = "tpu"\n',
            "recipe.toml: target must be auto, gpu, cpu, qnn, openvino, web, cpu-arm64, gpu-dla or the path of a .toml file, not 'tpu'",
        ),
        ('[quantize]\noutput = "x.onnx"\n', "unknown key 'output'"),
        ("[quantize\n", "not a TOML file"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(case: Case, content: str, said: str):
    recipe = case.folder / "recipe.toml"
    recipe.write_text(content)
    result = run("quantize", case.model, "--recipe", recipe, "--data", case.data, "-o", case.out)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not case.out.exists()


def test_a_recipe_that_is_missing_or_no_text(case: Case):
    for name, content in (("missing.toml", None), ("binary.toml", b"\xff\xfe")):
        if content is not None:
            (case.folder / name).write_bytes(content)
        result = run("quantize", case.model, "--recipe", case.folder / name, "-o", case.out)
        assert result.code == 2
        assert name in result.err


def test_a_file_without_a_recipe_says_so(case: Case):
    result = run("inspect", case.model, "--recipe")
    assert result.code == 3
    assert "carries no recipe" in result.err
    assert run("inspect", case.model, "--json").json["recipe"] == ""
