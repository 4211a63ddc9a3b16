"""Every node test of ONNX and every model onnx bundles: equalized, quantized, loaded and run.

    python benchmarks/robustness/nodes.py --json nodes.json [--every 20] [--peers 0]

Each case is a model with inputs. Onnxq and onnxruntime's `quantize_static` get the same file and
the inputs as calibration data; what they write must load, run, and compute what the float model
does: equalized to float rounding, quantized to `TOLERANCE` of the output's largest magnitude.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from isolated import Lost, isolated
from numpy.typing import NDArray
from onnx import numpy_helper
from scoreboard import Outcome, arguments, one_line, publish, reasons, report_progress

Array = NDArray[Any]

ROUNDING = 1e-5
"""Change of a float output that reordered float arithmetic explains."""

NARROW_ROUNDING = 2e-3
"""The same for models in float16, which onnxq computes in float32."""

TOLERANCE = 0.1
"""Largest error of an int8 output, as a share of the largest magnitude of that output: some steps
of 1/127 for each of the tensors that are rounded on the way."""


@dataclass(frozen=True)
class Case:
    """A model and one set of inputs; `inputs` holds serialized TensorProtos by input name."""

    name: str
    model: bytes
    inputs: Mapping[str, Array]


def node_cases() -> list[Case]:
    """The node tests whose inputs and outputs are plain tensors, and the other ones' models."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    cases = [
        Case(case.name, case.model.SerializeToString(), _named(case.model, case.data_sets[0][0]))
        for case in found
    ]
    return [*cases, *filter(None, map(frozen, cases))]


def frozen(case: Case) -> Case | None:
    """The case with all inputs but the first constant, as weights are in a real model.

    None where that changes nothing.
    """
    model = onnx.load_model_from_string(case.model)
    weights = [i for i in list(model.graph.input)[1:] if _is_dense(case.inputs.get(i.name))]
    if not weights or not _is_dense(case.inputs.get(model.graph.input[0].name)):
        return None
    model.ir_version = max(model.ir_version, 4)
    for info in weights:
        value = np.asarray(case.inputs[info.name])
        model.graph.initializer.append(numpy_helper.from_array(value, info.name))
        model.graph.input.remove(info)
    kept = {i.name for i in model.graph.input}
    inputs = {name: value for name, value in case.inputs.items() if name in kept}
    return Case(f"{case.name}+weights", model.SerializeToString(), inputs)


def _is_dense(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic))


def _named(model: onnx.ModelProto, values: Sequence[Any]) -> dict[str, Any]:
    names = [i.name for i in model.graph.input]
    dense = [np.asarray(value) if _is_dense(value) else value for value in values]
    return dict(zip(names, dense, strict=False))


def bundled_cases() -> list[Case]:
    """The .onnx files in the onnx package: simple ones, and those converted from PyTorch."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    cases = []
    for path in sorted(folder.rglob("model.onnx")):
        if path.parent.parent.name == "node":
            continue
        model = onnx.load(path)
        given = {tensor.name for tensor in model.graph.initializer}
        fed = [i for i in model.graph.input if i.name not in given]
        inputs = {}
        for spec, file in zip(
            fed, sorted(path.parent.glob("test_data_set_0/input_*.pb")), strict=False
        ):
            inputs[spec.name] = _read_input(spec, file)
        cases.append(Case(f"{path.parent.parent.name}/{path.parent.name}",
                          path.read_bytes(), inputs))  # fmt: skip
    return cases


def light_cases() -> list[Case]:
    """Whole networks with constants for weights, which take minutes each: only on request."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [Case(f"light/{p.name}", p.read_bytes(), {}) for p in sorted(light.glob("*.onnx"))]


def _read_input(spec: onnx.ValueInfoProto, file: Path) -> Any:
    if spec.type.WhichOneof("value") == "sequence_type":
        return None
    tensor = onnx.TensorProto()
    tensor.ParseFromString(file.read_bytes())
    return numpy_helper.to_array(tensor)


# --- what is asked of each tool ----------------------------------------------------------------


def examine(case: Case) -> list[Outcome]:
    """The outcomes of one case: "onnxq equalize", "onnxq quantize" for both targets."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="onnxq-nodes.") as name:
        folder = Path(name)
        path = folder / "model.onnx"
        path.write_bytes(case.model)
        reference = _float_run(path, case.inputs)
        kinds = ("equalize", "gpu", "cpu")
        return [_onnxq(case, path, folder, kind, reference) for kind in kinds]


def examine_peer(case: Case) -> list[Outcome]:
    """The outcome of onnxruntime's quantizer."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="onnxq-nodes.") as name:
        path = Path(name) / "model.onnx"
        path.write_bytes(case.model)
        return [_onnxruntime(case, path, Path(name), _float_run(path, case.inputs))]


def _float_run(path: Path, inputs: Mapping[str, Array]) -> list[Any] | str:
    """What ONNX Runtime computes for the model; its complaint where it does not."""
    try:
        return _run(path, inputs)
    except Exception as error:  # noqa: BLE001
        return one_line(error)


def _run(path: Path, inputs: Mapping[str, Array]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # What the model computes, not what a CPU without VNNI makes of it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    feeds = {k: v for k, v in inputs.items() if k in wanted}
    return list(session.run(None, feeds))


def _onnxq(case: Case, path: Path, folder: Path, kind: str, reference: list[Any] | str) -> Outcome:
    import onnxq
    from onnxq.errors import OnnxqError

    tool = "onnxq equalize" if kind == "equalize" else f"onnxq quantize --target {kind}"
    target = folder / f"{kind}.onnx"
    try:
        model = onnxq.load(path)
        if kind == "equalize":
            result = _equalized(model, _data(model, case, folder))
        else:
            data = _data(model, case, folder)
            result = onnxq.quantize(model, data, target=kind, allow_none=True)[0]
        onnxq.api.save(result, target)
    except OnnxqError as error:
        refusal = "refused" if error.exit_code in {2, 3, 4} else "traceback"
        return Outcome(case.name, tool, "partial" if target.exists() else refusal, str(error))
    except Exception as error:  # noqa: BLE001 - what is looked for
        return Outcome(case.name, tool, "traceback", one_line(error))
    return _judged(case, tool, target, reference, ROUNDING if kind == "equalize" else TOLERANCE)


def _data(model: Any, case: Case, folder: Path) -> Any:
    """The inputs as a `test_data_set_0`, the form onnx keeps them in, or random ones."""
    names = [spec.name for spec in model.inputs]
    if not all(isinstance(case.inputs.get(n), np.ndarray) for n in names) or not names:
        return "random:8"
    sets = folder / "data" / "test_data_set_0"
    if not sets.is_dir():
        sets.mkdir(parents=True)
        for number, name in enumerate(names):
            values = case.inputs[name]
            # NumPy's own text is no type of ONNX's.
            text = values.astype(object) if values.dtype.kind == "U" else values
            tensor = numpy_helper.from_array(text, name)
            (sets / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    return str(sets.parent)


def _equalized(model: Any, data: Any) -> Any:
    """With the data; where they do not fit or hold NaN, from the weights alone."""
    import onnxq
    from onnxq.errors import DataError, ModelError

    try:
        return onnxq.equalize(model, data=data)[0]
    except (DataError, ModelError):
        return onnxq.equalize(model)[0]


def _onnxruntime(case: Case, path: Path, folder: Path, reference: list[Any] | str) -> Outcome:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([dict(case.inputs)])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    tool, target = "onnxruntime quantize_static", folder / "ort.onnx"
    try:
        quantize_static(
            str(path), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001
        # It has no errors of its own. Where ONNX Runtime cannot run the float model either, any
        # will do for a refusal.
        refused = isinstance(reference, str)
        return Outcome(case.name, tool, "refused" if refused else "traceback", one_line(error))
    return _judged(case, tool, target, reference, TOLERANCE)


# --- judging -----------------------------------------------------------------------------------


def _judged(
    case: Case, tool: str, target: Path, reference: list[Any] | str, tolerance: float
) -> Outcome:
    if isinstance(reference, str):
        # The float model does not run with these inputs, so only loading can be asked.
        try:
            _load(target)
        except Exception as error:  # noqa: BLE001
            return Outcome(case.name, tool, "unusable", one_line(error))
        return Outcome(case.name, tool, "right", f"not run: {reference}")
    try:
        results = _run(target, case.inputs)
    except Exception as error:  # noqa: BLE001
        return Outcome(case.name, tool, "unusable", one_line(error))
    worst = max((_difference(a, b) for a, b in zip(reference, results, strict=True)), default=0.0)
    if any(isinstance(r, np.ndarray) and r.dtype.itemsize == 2 for r in reference):
        tolerance = max(tolerance, NARROW_ROUNDING)
    kind = "right" if worst <= tolerance or _is_random(case) else "wrong"
    return Outcome(case.name, tool, kind, f"difference {worst:.3g} of the largest output")


RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
                    "Bernoulli", "Multinomial", "Dropout"})  # fmt: skip


def _is_random(case: Case) -> bool:
    model = onnx.load_model_from_string(case.model)
    inner = (*model.graph.node, *(n for f in model.functions for n in f.node))
    return any(node.op_type in RANDOM for node in inner)


def _load(path: Path) -> None:
    import onnxruntime

    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _difference(a: Any, b: Any) -> float:
    """Largest difference over the largest magnitude of `a`; inf where they cannot be compared."""
    if isinstance(a, list):
        if len(a) != len(b):
            return np.inf
        return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if a is None or b is None or not isinstance(a, np.ndarray):
        return 0.0 if type(a) is type(b) else np.inf
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.dtype.kind not in "fc" and a.dtype.name != "bfloat16":
        return float(np.mean(a != b)) if a.size else 0.0
    first, second = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(first)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return np.inf
    scale = np.abs(first[finite]).max(initial=0.0) or 1.0
    return float(np.abs(first[finite] - second[finite]).max(initial=0.0)) / scale


def main() -> int:
    options = arguments(__doc__ or "", every=1, first=0, peers=1, light=0, seconds=60).parse_args()
    light = light_cases() if options.light else []
    cases = [*node_cases(), *bundled_cases(), *light][options.first :: options.every]
    works = [(examine, "onnxq"), (examine_peer, "onnxruntime quantize_static")]
    outcomes: list[Outcome] = []
    for work, tool in works[: 1 + bool(options.peers)]:
        for number, result in enumerate(isolated(work, cases, seconds=options.seconds), 1):
            name = cases[number - 1].name
            if isinstance(result, Lost):
                outcomes.append(Outcome(name, tool, result.kind, result.detail))
            else:
                outcomes.extend(result)
            report_progress(number, len(cases))
    code = publish("ONNX node tests and bundled models", outcomes, json_file=options.json,
                   onnx=onnx.__version__, models=len(cases))  # fmt: skip
    print("\nRefusals of onnxq quantize --target gpu:")
    ours = [o for o in outcomes if o.tool == "onnxq quantize --target gpu"]
    for reason, count in reasons(ours, "refused").most_common(15):
        print(f"{count:5} {reason}")
    return code


if __name__ == "__main__":
    sys.exit(main())
