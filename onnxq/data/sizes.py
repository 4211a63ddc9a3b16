"""Sizes of open dimensions with which a model runs: what random samples need and no file says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.checks import sizes as size_text
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.model.model import Model, TensorSpec
from onnxq.model.session import open_session, run, with_outputs
from onnxq.suggest import suggest

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Input → its shape, the axis that counts samples included."""

Key = str | tuple[str, int]
"""An open dimension: its name, which several inputs may share, or input and axis."""

SIDES = (224, 320, 640, 256, 416, 512, 384, 128, 96, 64, 32, 160, 192, 768, 1024)
"""Sides of images to try, multiples of 32 as most networks want, the usual ones first."""

LENGTHS = (32, 16, 64, 128, 8, 256, 512, 1024, 1, 4, 16000, 48000)
"""Lengths of other axes: tokens, frames, samples of sound."""

MOST_RUNS = 240
"""Runs of the model before the search gives up."""


def parse_shapes(texts: Sequence[str], inputs: Sequence[TensorSpec]) -> dict[str, Shape]:
    """Shapes as users write them, "x:1x3x320x320", or "1x3x320x320" for the only input.

    Raises `UsageError` where one cannot be read or does not fit its input.
    """
    specs = {spec.name: spec for spec in inputs}
    found: dict[str, Shape] = {}
    for text in texts:
        # Names hold colons, as those of TensorFlow do.
        name, colon, sides = text.rpartition(":")
        if not re.fullmatch(r"\d+(?:[x×]\d+)*", sides):
            raise UsageError(f"{text!r} is no shape", hint="write for example images:1x3x320x320")
        if not colon and len(inputs) > 1:
            raise UsageError(
                f"{text!r} does not say for which input",
                hint=f"write {inputs[0].name}:{sides}; the inputs are {', '.join(specs)}",
            )
        name = name if colon else inputs[0].name
        if name not in specs:
            hint = suggest(name, specs, of="its inputs")
            raise UsageError(f"{text!r}: the model has no input {name!r}", hint=hint)
        shape = tuple(int(side) for side in re.split("[x×]", sides))
        _check(shape, specs[name])
        found[name] = shape
    return found


def _check(shape: Shape, spec: TensorSpec) -> None:
    wanted = spec.shape
    if wanted is None:
        return
    pairs = zip(wanted, shape, strict=False)
    if len(wanted) == len(shape) and all(a == b for a, b in pairs if isinstance(a, int)):
        return
    raise UsageError(
        f"the shape {size_text(shape)} does not fit the input {spec.name!r}, {size_text(wanted)}"
    )


def find_shapes(
    specs: Sequence[TensorSpec],
    axes: BatchAxes,
    model: Model | None,
    draw: Callable[[Shapes], Feeds],
    given: Shapes,
) -> dict[str, Shape]:
    """Shapes of all inputs with which the model runs; the same for the same model.

    Args:
        specs: the inputs.
        model: what is run; without it no size may be open.
        draw: one batch, with inputs of these shapes.
        given: shapes that are settled.

    Raises:
        DataError: the model runs with none of those that were tried.
    """
    known = _known(specs, given)
    unknown = list(dict.fromkeys(
        key for spec in specs if spec.name not in given
        for key in _keys(spec, axes) if key not in known
    ))  # fmt: skip
    if not unknown:
        return _shapes(specs, axes, known, given)
    names = ", ".join(key if isinstance(key, str) else f"axis {key[1]} of {key[0]!r}"
                      for key in unknown)  # fmt: skip
    hint = f"say it with --input-shape {specs[0].name}:1x3x320x320, or give real samples"
    if model is None:
        raise DataError(f"cannot draw random samples: the model leaves open {names}", hint=hint)
    probe = _Probe(model, draw)
    for assignment in itertools.islice(_assignments(specs, axes, unknown, probe), MOST_RUNS):
        shapes = _shapes(specs, axes, {**known, **assignment}, given)
        if probe.runs(shapes):
            return shapes
    raise DataError(
        f"found no size of {names} with which the model runs on random samples: {probe.first}",
        hint=hint,
    )


def _known(specs: Sequence[TensorSpec], given: Shapes) -> dict[Key, int]:
    """Sizes of named dimensions that the given shapes tell."""
    return {
        size: given[spec.name][axis]
        for spec in specs
        if spec.name in given
        for axis, size in enumerate(spec.shape or ())
        if isinstance(size, str)
    }


def _keys(spec: TensorSpec, axes: BatchAxes) -> list[Key]:
    """The open dimensions of an input that do not count samples."""
    if spec.shape is None:
        raise DataError(
            f"cannot draw random samples for input {spec.name!r}: the model does not say its shape",
            hint=f"say it with --input-shape {spec.name}:1x3x320x320, or give real samples",
        )
    counted = axes.inputs[spec.name]
    return [
        size if isinstance(size, str) else (spec.name, axis)
        for axis, size in enumerate(spec.shape)
        if not isinstance(size, int) and axis != counted
    ]


def _shapes(
    specs: Sequence[TensorSpec], axes: BatchAxes, sizes: Mapping[Key, int], given: Shapes
) -> dict[str, Shape]:
    def side(spec: TensorSpec, axis: int, size: object) -> int:
        if isinstance(size, int):
            return size
        if axis == axes.inputs[spec.name]:
            return axes.fixed or 1
        return sizes[size if isinstance(size, str) else (spec.name, axis)]

    return {
        spec.name: given[spec.name]
        if spec.name in given
        else tuple(side(spec, axis, size) for axis, size in enumerate(spec.shape or ()))
        for spec in specs
    }


@dataclass
class _Probe:
    """Runs the model to see how far it comes.

    Attributes:
        first: the first complaint.
        said: numbers in the latest one: what a layer expected, as a rule.
        reached: the place of the node that failed last.
    """

    model: Model
    draw: Callable[[Shapes], Feeds]
    first: str = ""
    said: tuple[int, ...] = ()
    reached: int = 0

    def __post_init__(self) -> None:
        proto = with_outputs(self.model, [output.name for output in self.model.outputs])
        for number, node in enumerate(proto.graph.node):
            node.name = f"onnxq.{number}."
        # As it is written: the names of nodes tell how far it came.
        self._session = open_session(proto, optimize=False)

    def runs(self, shapes: Shapes) -> bool:
        try:
            run(self._session, None, self.draw(shapes))
        except ModelError as error:
            message = error.message
            place = re.search(r"onnxq\.(\d+)\.", message)
            self.reached = int(place[1]) if place else -1
            self.said = tuple(int(n) for n in re.findall(r"(?<![\d.])\d{1,6}(?![\d.])", message))
            self.first = self.first or re.sub(r"\s*Name:'onnxq\.\d+\.'", "", message)
            return False
        return True


def _assignments(
    specs: Sequence[TensorSpec], axes: BatchAxes, unknown: Sequence[Key], probe: _Probe
) -> Iterator[dict[Key, int]]:
    """Sizes to try: the usual ones for all alike, then one dimension after the other.

    After each the caller has the probe run it; what came farthest is gone on from.
    """
    images = {key for spec in specs if _is_image(spec, axes) for key in _keys(spec, axes)[-2:]}
    channels = {
        key for spec in specs if _is_image(spec, axes) for key in _keys(spec, axes)[:-2]
    } - images
    sides = SIDES if images & set(unknown) else SIDES[:1]
    lengths = LENGTHS if set(unknown) - images - channels else LENGTHS[:1]
    best: dict[Key, int] = {}
    farthest = -2
    pairs = sorted(itertools.product(enumerate(sides), enumerate(lengths)),
                   key=lambda pair: pair[0][0] + pair[1][0])  # fmt: skip
    for (_, side), (_, length) in pairs[:48]:
        current = {
            key: side if key in images else 3 if key in channels else length for key in unknown
        }
        yield current
        if probe.reached > farthest:
            best, farthest, said = current, probe.reached, probe.said
    while True:
        before = farthest
        for key in unknown:
            usual = SIDES if key in images else LENGTHS
            for size in dict.fromkeys([*(n for n in said if n), *usual]):
                if size == best[key]:
                    continue
                current = {**best, key: size}
                yield current
                if probe.reached > farthest:
                    best, farthest, said = current, probe.reached, probe.said
        if farthest == before:
            return


def _is_image(spec: TensorSpec, axes: BatchAxes) -> bool:
    """Whether the last open axes of an input are the sides of an image, or of a volume."""
    rank = len(spec.shape or ()) - (axes.inputs[spec.name] is not None)
    return rank >= 3 and len(_keys(spec, axes)) >= 2
