"""What to try next, from what was measured: a finding, and the options that answer it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnxq.formats.scheme import Scheme
from onnxq.report.html.facts import View
from onnxq.report.html.sizes import Sizes
from onnxq.report.table import number
from onnxq.targets import shipped_targets
from onnxq.validation.latency import Latency
from onnxq.validation.layers import LayerError

LARGE_SHARE = 20.0
"""% of the output error from which one layer is worth treating by itself."""

MOST = 60.0
"""% of the layers' errors from which a cause is called that of most."""

LARGE_TABLE = 0.25
"""Share of a file from which embeddings in float are worth a word."""

SLOWER = 0.95
"""Time by that of the float model from which a model does not pay on a machine."""


@dataclass(frozen=True)
class Advice:
    """One thing to try.

    Attributes:
        found: what was measured.
        option: what to add to `onnxq quantize`; "" where there is none.
        effect: what to expect of it.
        layer: the node it is about; "" for all.
    """

    found: str
    option: str
    effect: str
    layer: str = ""


def advice_on(view: View, sizes: Sizes, latency: Latency | None) -> tuple[Advice, ...]:
    """What to try with one quantized model, what helps most first.

    Args:
        latency: its time against the float model's on this machine; None where nobody measured.
    """
    settings = dict(view.settings)
    layers = view.report.layers if view.report else ()
    return (
        *_on_layers(layers, settings),
        *_on_causes(layers, settings),
        *_on_size(sizes, settings),
        *_on_time(latency, settings),
    )


def _wider(settings: Mapping[str, str]) -> Scheme | None:
    """The scheme with more bits that the model's target computes single layers in, if any."""
    target = shipped_targets().get(settings.get("target", ""))
    found = None if target is None else target.schemes.get(settings.get("scheme", ""))
    return None if found is None else found.scheme.wider


def _on_layers(layers: tuple[LayerError, ...], settings: Mapping[str, str]) -> Iterator[Advice]:
    worst = [each for each in layers[:3] if each.share >= LARGE_SHARE]
    if worst and len(layers) > len(worst):
        shares = " + ".join(f"{each.share:.0f} %" for each in worst)
        names = ", ".join(each.name for each in worst)
        left = 100 - sum(each.share for each in worst)
        gain = -10 * math.log10(max(left, 0.1) / 100)
        pattern = "|".join(f"^{re.escape(each.name)}$" for each in worst)
        yield Advice(
            f"{names} make{'s' if len(worst) == 1 else ''} {shares} of the error of the output.",
            f"--exclude {shlex.quote(pattern)}",
            f"leaves {'it' if len(worst) == 1 else 'them'} in float: some {gain:.1f} dB more SQNR "
            "if errors of different layers are independent",
            worst[0].name,
        )
    if layers:
        wider = _wider(settings)
        yield Advice(
            f"The worst tenth of the layers makes {_of_the_worst(layers):.0f} % of the error.",
            "--mixed 10%",
            f"computes these in {wider}" if wider else "leaves these in float",
        )


def _of_the_worst(layers: tuple[LayerError, ...]) -> float:
    return sum(each.share for each in layers[: max(1, round(len(layers) / 10))])


def _on_causes(layers: tuple[LayerError, ...], settings: Mapping[str, str]) -> Iterator[Advice]:
    known = [each for each in layers if not math.isnan(each.causes.weights)]
    whole = sum(each.share for each in known)
    if whole < MOST:
        return
    weights = sum(each.share * each.causes.weights for each in known) / whole
    if weights >= MOST:
        found = f"Rounding the weights makes some {weights:.0f} % of the layers' errors."
        if settings.get("weights") == "per-tensor":
            yield Advice(found, "--weights per-channel", "gives each channel a scale of its own")
        if settings.get("rounding") == "nearest":
            yield Advice(found, "--rounding adaptive", "rounds each weight for its layer's output")
    elif weights <= 100 - MOST:
        found = f"Rounding the activations makes some {100 - weights:.0f} % of the layers' errors."
        if settings.get("equalize") == "no":
            yield Advice(
                found, "--equalize", "makes the channels of a tensor alike where that is exact"
            )
        elif (wider := _wider(settings)) is not None and wider.static is not None:
            yield Advice(found, f"--scheme {wider}", "has more bits for activations")


def _on_size(sizes: Sizes, settings: Mapping[str, str]) -> Iterator[Advice]:
    tables = sizes.kinds.get("embeddings in float32", 0)
    if tables > LARGE_TABLE * sizes.whole and "table bits" not in settings:
        yield Advice(
            f"{number(tables / 1e6, 3)} of {number(sizes.whole / 1e6, 3)} MB are embeddings in "
            "float.",
            "--table-bits 8",
            "stores them as integers, where the target reads such tables",
        )


def _on_time(latency: Latency | None, settings: Mapping[str, str]) -> Iterator[Advice]:
    if latency is None or latency.ratio.median < SLOWER:
        return
    found = f"On this machine it takes {latency.ratio.median:.2f} times as long as the float model."
    target = settings.get("target", "")
    if target and target != "cpu":
        yield Advice(
            found, "--target cpu", f"makes it for processors; {target} is for other machines"
        )
    else:
        yield Advice(found, "", "see the time by operator below for what takes it")
