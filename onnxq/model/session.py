"""ONNX Runtime sessions: the one place that opens them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.errors import ModelError, OnnxqError
from onnxq.formats.table import Floating, format_of
from onnxq.model import external, split_files
from onnxq.model.cuda import open_on_cuda, require_cuda
from onnxq.model.model import Model
from onnxq.model.onnx_runtime import onnx_runtime
from onnxq.model.qnn import open_on_qnn
from onnxq.model.runtime_errors import failed, reason_of, refused

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]


def open_session(
    model: Model | ModelProto | Path,
    *,
    optimize: bool = True,
    provider: str = "cpu",
    threads: int = 0,
    keep_qdq: bool = False,
    optimized: Path | None = None,
    layout: bool = True,
    libraries: Sequence[Path] = (),
    yields: bool = False,
    lean: bool = False,
    shapes_first: bool = False,
    arena: bool = True,
    profile: Path | None = None,
) -> ort.InferenceSession:
    """Open a session.

    Args:
        model: the model, its proto or its file.
        optimize: False runs the graph as written, node by node. So does a model with floating
            numbers, whatever this says; of a file the caller knows.
        provider: "cpu", "cuda" or "qnn".
        threads: intra-operator threads; 0 lets ONNX Runtime choose.
        keep_qdq: never fuse QuantizeLinear and DequantizeLinear into integer kernels.
        optimized: write the graph that really runs here; of "qnn" a folder for its graphs.
        layout: False leaves the memory layout, and so the names of nodes, as they are.
        libraries: shared libraries of custom operators.
        yields: its threads sleep as soon as a run ends, instead of waiting for the next one in a
            loop that keeps the cores from other threads.
        lean: its tensors are allocated one by one, not as one block that is planned at the first
            run and stands beside what the outputs take: half the memory for large tensors, a
            little slower for small ones.
        shapes_first: the shape of a tensor is taken as soon as it is there, not at the end.
        arena: False takes tensors from the system and gives them back at once, instead of keeping
            what any run ever took: for one of many sessions that wait for each other.

    Raises:
        ResourceError: there is not enough memory.
        ModelError: ONNX Runtime refuses the model, or a library; CUDA would leave nodes to the CPU.
        ProviderError: the provider is not available, or ONNX Runtime is not.
    """
    ort = onnx_runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    best = level.ORT_ENABLE_ALL if layout else level.ORT_ENABLE_EXTENDED
    as_written = not optimize or has_floating_numbers(model)
    options.graph_optimization_level = level.ORT_DISABLE_ALL if as_written else best
    _write_beside(options, None if provider == "qnn" else optimized, profile)
    if keep_qdq:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    options.enable_mem_pattern = not lean
    options.enable_cpu_mem_arena = arena
    if shapes_first:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if yields:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    for library in dict.fromkeys((*libraries, *_libraries.get())):
        _register(options, library)
    try:
        with _source(model) as source:
            return _opened_somehow(source, options, provider, optimized)
    except OnnxqError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class of their own
        raise refused(error) from None


def has_floating_numbers(model: Model | ModelProto | Path) -> bool:
    """Whether constants are numbers of a floating format; False of a file, which is not read.

    ONNX Runtime's optimizations take their Q/DQ for those of integers (1.31): it refuses the
    integer kernels that it makes of them, and drops what a zero point of an integer would make up
    for, such as a Relu.
    """
    if isinstance(model, Path):
        return False
    proto = model.message if isinstance(model, Model) else model
    formats = (format_of(each) for each in {t.data_type for t in proto.graph.initializer})
    return any(each is not None and isinstance(each.grid, Floating) for each in formats)


def _write_beside(
    options: ort.SessionOptions, optimized: Path | None, profile: Path | None
) -> None:
    """Let the session write files of what it runs."""
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)


MISTYPED = "does not match y_zero_point type"
"""What ONNX Runtime (1.32) says of itself where it moved a signed Q in front of a Reshape, from
opset 21 on, and then makes activations unsigned: it forgets the Q's attribute."""


def _opened_somehow(
    source: bytes | str, options: ort.SessionOptions, provider: str, optimized: Path | None
) -> ort.InferenceSession:
    """Open it; with signed activations as they are where ONNX Runtime trips over its own change."""
    try:
        return _opened(source, options, provider, optimized)
    except Exception as error:
        if MISTYPED not in str(error):
            raise
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        return _opened(source, options, provider, optimized)


def _opened(
    source: bytes | str, options: ort.SessionOptions, provider: str, optimized: Path | None
) -> ort.InferenceSession:
    ort = onnx_runtime()

    if provider == "cuda":
        require_cuda()
        return open_on_cuda(source, options)
    if provider == "qnn":
        return open_on_qnn(source, options, optimized)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def with_graph(
    open_at: Callable[..., ort.InferenceSession],
) -> tuple[ort.InferenceSession, ModelProto]:
    """A session, and the graph that it runs after all optimizations.

    Args:
        open_at: opens the session, given the path for the graph as `optimized`.

    Raises:
        ModelError: what `open_at` raises; or the graph cannot be written or read.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        path = Path(folder) / "optimized.onnx"
        session = open_at(optimized=path)
        try:
            # Weights in files of their own are not read: they do not lie beside this one.
            proto = onnx.load(path, load_external_data=False)
        except Exception as error:  # noqa: BLE001 - none was written, or one protobuf refuses
            raise ModelError(f"the optimized graph was not saved: {error}") from None
    external.point_to_spool(proto)
    return session, proto


_libraries: ContextVar[tuple[Path, ...]] = ContextVar("libraries", default=())


@contextmanager
def custom_operators(libraries: Iterable[Path]) -> Iterator[None]:
    """Sessions that this thread opens in the block know the operators of these libraries."""
    token = _libraries.set((*_libraries.get(), *libraries))
    try:
        yield
    finally:
        _libraries.reset(token)


def libraries_in_use() -> tuple[Path, ...]:
    """Those of the `custom_operators` blocks around the caller."""
    return _libraries.get()


def refusal_of(path: Path) -> ModelError | None:
    """Why ONNX Runtime does not load the model in this file; None where it does.

    A model can contradict itself in more ways than any reader foresees. Where a stage fails on
    one, this tells whose fault it is.
    """
    try:
        open_session(path, optimize=False)
    except ModelError as error:
        return ModelError(f"{path}: {error.message}", hint=error.hint)
    return None


@dataclass(frozen=True)
class Runtime:
    """Where models run beside other work; see `open_session`."""

    provider: str = "cpu"
    threads: int = 0
    libraries: tuple[Path, ...] = ()
    lean: bool = False
    arena: bool = True

    @property
    def cores(self) -> int:
        """Threads that it may keep busy."""
        return self.threads or os.cpu_count() or 1

    def share(self, parts: int) -> Runtime:
        """For one of so many that run side by side: each has its part of the threads."""
        if parts == 1:
            return self
        return replace(self, threads=max(1, self.cores // parts))

    def open(
        self,
        model: Model | ModelProto | Path,
        *,
        optimize: bool = True,
        optimized: Path | None = None,
        keep_qdq: bool = False,
    ) -> ort.InferenceSession:
        return open_session(
            model, provider=self.provider, threads=self.threads, libraries=self.libraries,
            optimize=optimize, optimized=optimized, yields=True, lean=self.lean, keep_qdq=keep_qdq,
            arena=self.arena,
        )  # fmt: skip


def _register(options: ort.SessionOptions, library: Path) -> None:
    if not library.is_file():
        raise ModelError(f"{library}: no such library of custom operators")
    try:
        options.register_custom_ops_library(str(library.resolve()))
    except Exception as error:  # noqa: BLE001
        raise ModelError(
            f"{library} is no library of custom operators: {reason_of(error)}",
            hint="it must export RegisterCustomOps and be built for this ONNX Runtime",
        ) from None


@contextmanager
def _source(model: Model | ModelProto | Path) -> Iterator[bytes | str]:
    if isinstance(model, Path):
        yield str(model)
        return
    proto = model.message if isinstance(model, Model) else model
    if external.needs_file(proto):
        with split_files.as_file(proto) as path:
            yield str(path)
    else:
        yield proto.SerializeToString()


def run(
    session: ort.InferenceSession, names: Sequence[str] | None, feeds: Mapping[str, Array]
) -> list[Array]:
    """Run once; errors of ONNX Runtime become `ModelError`, those of memory `ResourceError`."""
    try:
        # numpy turns what is computed from 0-d arrays into scalars, which are no inputs.
        arrays = {name: np.asarray(values) for name, values in feeds.items()}
        if any(values.dtype.name == "bfloat16" for values in arrays.values()):
            return _run_as_ort_values(session, names, arrays)
        result: list[Array] = session.run(names, arrays)
    except Exception as error:  # noqa: BLE001
        raise failed(error) from None
    return result


def _run_as_ort_values(
    session: ort.InferenceSession, names: Sequence[str] | None, feeds: Mapping[str, Array]
) -> list[Array]:
    """Run with bfloat16 inputs, which ONNX Runtime does not take as numpy arrays."""
    ort = onnx_runtime()
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
            np.ascontiguousarray(array).view(np.uint16), onnx.TensorProto.BFLOAT16
        )
        if array.dtype.name == "bfloat16"
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    found = session.run_with_ort_values(names, values)
    return [value.numpy() for value in found]


def with_outputs(model: Model, names: Iterable[str]) -> ModelProto:
    """A copy of the model whose outputs are exactly `names`, in that order."""
    proto = ModelProto()
    proto.CopyFrom(model.message)
    known = {i.name: i for i in (*proto.graph.value_info, *proto.graph.output, *proto.graph.input)}
    wanted = [known.get(name) or onnx.ValueInfoProto(name=name) for name in names]
    del proto.graph.output[:]
    proto.graph.output.extend(wanted)
    return proto


def exact_equal(a: Array, b: Array) -> bool:
    """Whether two arrays agree in every bit, NaN included, −0 and +0 held equal."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    # Strings are compared too, and have no NaN.
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
