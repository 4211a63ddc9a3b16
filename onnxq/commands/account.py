"""What a quantized model came to, its speed on this machine among it."""

from __future__ import annotations

from dataclasses import replace

from onnxq.data.budget import OneSample
from onnxq.errors import OnnxqError
from onnxq.model.cuda import refusal_of_tensorrt
from onnxq.model.model import Model
from onnxq.model.multiply_adds import multiply_adds
from onnxq.quantization.account import Account, Speed, account_of, costs_on_tensor_cores
from onnxq.quantization.request import QuantizationResult
from onnxq.targets import SHIPPED
from onnxq.validation.latency import Latency, measure, open_contender

SECONDS = 1.0
"""Time for both models; the first runs of each come besides."""

MOST = 15
"""Rounds: small models are timed in a tenth of a second."""

LARGEST, LONGEST = 1 << 29, 0.5
"""Bytes of a model, and seconds of its run, up to which it is timed in passing: `onnxq bench` takes
the memory and the time that others need."""

HERE, DEVICE = "cpu", "cuda"
"""Runtimes of targets: the one that is everywhere, and that of a graphics card."""


def account_for(
    model: Model,
    quantized: Model,
    result: QuantizationResult,
    sample: OneSample,
    *,
    measures: bool,
) -> Account:
    """Count and measure; what does not work leaves the result as good as it is.

    Args:
        model: as it was given.
        sample: of the data, or a random one.
        measures: whether to time the models where the target runs here.
    """
    prepared, plan = result.prepared.model, result.plan
    try:
        products = multiply_adds(prepared, sample.single)
    except OnnxqError:
        products = {}
    account = account_of(model, prepared, quantized, plan, products)
    runtime = plan.target.runtime
    speed = _speed(model, quantized, sample) if measures and runtime == HERE else None
    cautions = costs_on_tensor_cores(prepared, plan, products) if runtime == DEVICE else ()
    # What a machine of the user's own has is not known.
    elsewhere = _elsewhere(runtime if plan.target.name in SHIPPED else "", speed)
    return replace(account, speed=speed, cautions=(*cautions, *filter(None, [elsewhere])))


def _speed(model: Model, quantized: Model, sample: OneSample) -> Speed | None:
    """Time both; None for what is too large or too slow to do so in passing."""
    if model.size > LARGEST:
        return None
    try:
        feeds = sample.single
        exact = open_contender(model, [feeds])
        if exact.time(0)[0] > LONGEST:
            return None
        contenders = [exact, open_contender(quantized, [feeds])]
        before, after = measure(contenders, seconds=SECONDS, least=1, most=MOST)
    except OnnxqError:
        return None
    return speed_of(before, after)


def speed_of(before: Latency, after: Latency) -> Speed:
    """The speed of two models timed in turns, the float one first.

    CPU time: what else the machine does is no part of it.
    """
    return Speed(after.samples, before.cpu.median, after.cpu.median, after.cpu_ratio.median)


def _elsewhere(runtime: str, speed: Speed | None) -> str:
    """What a model for another machine is on this one, and what is faster here; "" for nothing."""
    if runtime == DEVICE and (why := refusal_of_tensorrt()) is not None:
        return (
            f"made for a GPU, and {why}: on a CPU the float model is faster; --target {HERE} makes "
            "one for that"
        )
    if speed is not None and speed.ratio > 1:
        return (
            "slower than the float model on this machine's CPU: onnxq bench --profile shows where "
            "the time goes"
        )
    return ""
