"""What users hand over: models, data and calibrations, as values or as paths."""

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxq.api import calibrate
from onnxq.calibration import files as calibration_files
from onnxq.commands.budget import one_sample
from onnxq.commands.inputs import (
    as_calibration,
    as_model,
    as_models,
    as_source,
    require_same_preprocessing,
    source_of,
)
from onnxq.commands.merge import merge
from onnxq.data.preprocess import Preprocessing
from onnxq.errors import DataError, UsageError
from onnxq.model import files
from onnxq.model.model import Model
from onnxq.options.validate import ValidateOptions

from support.builder import Builder


def network(seed=0):
    b = Builder(seed)
    return b.model(b.op("Relu", b.gemm(b.input(4), 3)))


MODEL = network()
DATA = {"x": np.arange(40, dtype=np.float32).reshape(10, 4)}


def test_a_model_may_be_a_path_and_models_one_of_either(tmp_path):
    path = tmp_path / "m.onnx"
    files.save(MODEL, path)
    assert as_model(MODEL) is MODEL
    for given in (path, str(path)):
        assert as_model(given).fingerprint == MODEL.fingerprint
        assert [each.source for each in as_models(given)] == [path]
    assert as_models(MODEL) == [MODEL]
    assert as_models([]) == []
    assert [each.name for each in as_models([MODEL, path])] == [MODEL.name, "m.onnx"]


def test_a_source_passes_as_it_is():
    source = as_source(DATA, MODEL)
    assert source.count == 10
    assert as_source(source, MODEL) is source
    assert as_source(DATA["x"], MODEL, samples=3).count == 3


def test_a_path_may_be_text(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, DATA["x"])
    assert as_source(str(path), MODEL).fingerprint == as_source(path, MODEL).fingerprint


def test_a_command_reads_as_its_options_say():
    options = ValidateOptions(data=DATA, samples=4)
    assert source_of(options, MODEL).count == 4
    assert source_of(options, MODEL, samples=2).count == 2


def test_values_that_are_not_finite_pass_only_where_that_is_asked():
    bad = {"x": np.full((2, 4), np.inf, np.float32)}
    with pytest.raises(DataError, match=r"Inf|not finite|infinite"):
        list(as_source(bad, MODEL).batches(2))
    (batch,) = as_source(bad, MODEL, allow_nonfinite=True).batches(2)
    assert np.isinf(batch.feeds["x"]).all()


def test_the_calibration_of_another_model_is_refused(tmp_path):
    calibration = calibrate(MODEL, DATA)
    assert as_calibration(calibration, MODEL) is calibration
    path = tmp_path / "c.calib"
    calibration_files.save(calibration, path)
    assert as_calibration(path, MODEL).samples == 10
    for given, name in ((calibration, "the calibration"), (path, "c.calib")):
        with pytest.raises(DataError, match=f"{name} was made for another model") as caught:
            as_calibration(given, network(1))
        assert "onnxq calibrate" in caught.value.hint


def test_preprocessing_has_to_agree_as_far_as_both_say():
    source = as_source(DATA, MODEL)
    unit = dataclasses.replace(source.source, preprocessing=Preprocessing.parse("unit"))
    require_same_preprocessing("", unit, "the model")
    require_same_preprocessing(str(unit.preprocessing), unit, "the model")
    require_same_preprocessing("resize=3", source, "the model")
    require_same_preprocessing("resize=3", None, "the model")
    with pytest.raises(DataError, match="but the model used 'resize=3'"):
        require_same_preprocessing("resize=3", unit, "the model")


def test_one_sample_is_the_first_or_a_random_one():
    first = one_sample(MODEL, as_source(DATA, MODEL)).largest
    assert first["x"][0].tolist() == [0, 1, 2, 3]
    random = one_sample(MODEL, None).largest
    assert random["x"].shape[1:] == (4,)


# --- merging -----------------------------------------------------------------------------------


def test_parts_are_joined_from_values_and_files(tmp_path):
    parts = [calibrate(MODEL, DATA, shard=f"{index}/2") for index in (1, 2)]
    path = tmp_path / "b.calib"
    calibration_files.save(parts[1], path)
    found = merge([parts[0], path])
    assert (found.samples, found.shards) == (10, ((1, 1),))


def test_one_calibration_is_no_list(tmp_path):
    for given in ("a.calib", tmp_path / "a.calib", calibrate(MODEL, DATA), []):
        with pytest.raises(UsageError, match="merge needs a list of calibrations"):
            merge(given)


def test_parts_that_do_not_fit_are_named(tmp_path):
    paths = [tmp_path / "a.calib", tmp_path / "b.calib"]
    for path, seed in zip(paths, (0, 1), strict=True):
        calibration_files.save(calibrate(network(seed), DATA), path)
    with pytest.raises(DataError) as caught:
        merge(paths)
    assert caught.value.message.startswith(f"{paths[0]}, {paths[1]}: ")


def test_a_folder_for_a_model_that_gives_a_sequence(tmp_path):
    """It has no classes whose number a run could tell."""
    node = helper.make_node("SplitToSequence", ["x"], ["seq"], axis=1)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_value_info("seq", kind)],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    model = Model(helper.make_model(graph, opset_imports=opset, ir_version=8))
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", x=np.ones((1, 4), np.float32))
    assert as_source(tmp_path, model).count == 2
