"""Sizes of open dimensions with which a model runs: what random samples need and no file says."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
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

MOST_PAIRS = 48
"""Sides and lengths that are tried for all dimensions alike."""

ROUNDS = 3
"""How often each dimension alone is gone over before the search gives up."""

CHANNELS = 3
"""Channels of an image to begin with."""


def parse_shapes(texts: Sequence[str], inputs: Sequence[TensorSpec]) -> dict[str, Shape]:
    """Shapes as users write them, "x:1x3x320x320", or "1x3x320x320" for the only input.

    Raises `UsageError` where one cannot be read or does not fit its input.
    """
    specs = {spec.name: spec for spec in inputs}
    found: dict[str, Shape] = {}
    for text in texts:
        # Names hold colons, as those of TensorFlow do.
        name, colon, sides = text.rpartition(":")
        if not re.fullmatch(r"\d{1,18}(?:[x×]\d{1,18})*", sides, re.ASCII):
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


MOST_VALUES = 1 << 26
"""Numbers in the inputs of one sample that are still tried."""


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
    probe = _probe(model)

    def attempt(assignment: Mapping[Key, int]) -> _Failure | None:
        shapes = _shapes(specs, axes, {**known, **assignment}, given)
        if sum(map(math.prod, shapes.values())) > MOST_VALUES:
            return _Failure(-1, (), "the model needs too large an input")
        return probe(draw(shapes))

    found = _search(specs, axes, unknown, attempt)
    if isinstance(found, _Failure):
        raise DataError(
            f"found no size of {names} with which the model runs on random samples: "
            f"{found.message}",
            hint=hint,
        )
    return _shapes(specs, axes, {**known, **found}, given)


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


@dataclass(frozen=True)
class _Failure:
    """How far the model came.

    Attributes:
        reached: the place of the node that failed.
        said: numbers in its complaint: what a layer expected, as a rule.
    """

    reached: int
    said: tuple[int, ...]
    message: str

    def is_behind(self, before: _Failure, size: int) -> bool:
        """Whether the model came farther than before, with a dimension of this size.

        A layer that takes the size it asked for may complain of another one.
        """
        another = size in before.said and bool(set(self.said) - set(before.said))
        return self.reached > before.reached or (self.reached == before.reached and another)


def _probe(model: Model) -> Callable[[Feeds], _Failure | None]:
    """Runs the model to see how far it comes; None where it comes to its end."""
    proto = with_outputs(model, [output.name for output in model.outputs])
    for number, node in enumerate(proto.graph.node):
        node.name = f"onnxq.{number}."
    # As it is written: the names of nodes tell how far it came.
    session = open_session(proto, optimize=False)

    def attempt(feeds: Feeds) -> _Failure | None:
        try:
            run(session, None, feeds)
        except ModelError as error:
            message = re.sub(r"\s*Name:'onnxq\.\d+\.'", "", error.message)
            place = re.search(r"onnxq\.(\d+)\.", error.message)
            numbers = (int(each) for each in re.findall(r"(?<![\d.])\d{1,6}(?!\d|\.\d)", message))
            said = tuple(number for number in numbers if number > 1)
            return _Failure(int(place[1]) if place else -1, said, message)
        return None

    return attempt


def _search(
    specs: Sequence[TensorSpec],
    axes: BatchAxes,
    unknown: Sequence[Key],
    attempt: Callable[[Mapping[Key, int]], _Failure | None],
) -> Mapping[Key, int] | _Failure:
    """Sizes with which the model runs, or its first complaint.

    The usual sizes are tried for all dimensions alike, then one dimension after the other, going
    on from where the model came farthest.
    """
    pictures = [_keys(spec, axes) for spec in specs if _is_image(spec, axes)]
    sides = {key for keys in pictures for key in keys[-2:]}
    channels = {key for keys in pictures for key in keys[:-2]} - sides
    tried: list[tuple[dict[Key, int], _Failure]] = []
    for side, length in _pairs(unknown, sides, channels):
        current = {
            key: side if key in sides else CHANNELS if key in channels else length
            for key in unknown
        }
        failure = attempt(current)
        if failure is None:
            return current
        tried.append((current, failure))
    best, before = max(tried, key=lambda each: each[1].reached)
    for _, key in itertools.product(range(ROUNDS), unknown):
        for size in dict.fromkeys([*before.said, *(SIDES if key in sides else LENGTHS)]):
            current = {**best, key: size}
            failure = attempt(current) if current != best else before
            if failure is None:
                return current
            if failure.is_behind(before, size):
                best, before = current, failure
                break
    return tried[0][1]


def _pairs(unknown: Sequence[Key], sides: set[Key], channels: set[Key]) -> list[tuple[int, int]]:
    """Sides and lengths to try for all dimensions alike, the likeliest first."""
    first = SIDES if sides & set(unknown) else SIDES[:1]
    second = LENGTHS if set(unknown) - sides - channels else LENGTHS[:1]
    pairs = itertools.product(range(len(first)), range(len(second)))
    order = sorted(pairs, key=lambda pair: (sum(pair), pair))
    return [(first[i], second[j]) for i, j in order[:MOST_PAIRS]]


def _is_image(spec: TensorSpec, axes: BatchAxes) -> bool:
    """Whether the last open axes of an input are the sides of an image, or of a volume."""
    rank = len(spec.shape or ()) - (axes.inputs[spec.name] is not None)
    return rank >= 3 and len(_keys(spec, axes)) >= 2
