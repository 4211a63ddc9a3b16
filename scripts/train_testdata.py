#!/usr/bin/env python3
"""Train the three small networks of `testdata/` and cut its images, from Fashion-MNIST.

Run by hand, never by the tests: it needs torch and onnxscript (`pip install onnxq[train]`) and
the images of Debian's package `dataset-fashion-mnist` (MIT licence).

    python scripts/train_testdata.py images
    python scripts/train_testdata.py train squeezenet
    python scripts/train_testdata.py train mobilenetv2
    python scripts/train_testdata.py train encoder

Weight decay acts on the weights of convolutions and linear layers, not on norms or biases: the
usual recipe, and the one that leaves channels of very different range behind.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import math
import struct
import time
from pathlib import Path

import numpy as np
import torch
from testdata_networks import NETWORKS
from torch import nn
from torch.nn import functional

DATASET = Path("/usr/share/datasets/fashion-mnist")
TESTDATA = Path(__file__).resolve().parent.parent / "testdata"
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
CALIBRATION_PER_CLASS, TEST_PER_CLASS = 50, 200


def read_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as uint8 (N, 28, 28) and labels as uint8 (N,), in file order."""
    with gzip.open(DATASET / f"{split}-images-idx3-ubyte.gz") as stream:
        _, count, rows, columns = struct.unpack(">4I", stream.read(16))
        images = np.frombuffer(stream.read(), np.uint8).reshape(count, rows, columns)
    with gzip.open(DATASET / f"{split}-labels-idx1-ubyte.gz") as stream:
        stream.read(8)
        labels = np.frombuffer(stream.read(), np.uint8)
    return images, labels


def write_images() -> None:
    """Write the first images of each class as PNG files in class folders."""
    from PIL import Image

    for folder, split, count in (
        ("calibration", "train", CALIBRATION_PER_CLASS),
        ("test", "t10k", TEST_PER_CLASS),
    ):
        images, labels = read_split(split)
        for label, name in enumerate(CLASSES):
            target = TESTDATA / "fashion-mnist" / folder / f"{label}_{name}"
            target.mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(images[index]).save(target / f"{index:05d}.png", optimize=True)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each batch by up to 2 pixels."""
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(batch, (2, 2, 2, 2))[:, :, top : top + 28, left : left + 28]


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = sum(
            int((model(batch).argmax(1) == target).sum())
            for batch, target in zip(images.split(500), labels.split(500), strict=True)
        )
    return hits / len(labels)


def per_tensor_accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy with batch norms folded and every convolution's weight int8 per tensor."""
    model = copy.deepcopy(model)
    previous = None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            gain = (module.weight / torch.sqrt(module.running_var + module.eps))[
                :, None, None, None
            ]
            with torch.no_grad():
                folded = previous.weight * gain
                step = folded.abs().max() / 127
                module.running_mean *= gain.flatten()
                module.running_var.fill_(1 - module.eps)
                module.weight.fill_(1.0)
                previous.weight.copy_(torch.round(folded / step) * step)
        previous = module
    return accuracy(model, images, labels)


def optimizer_of(name: str, model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    # MobileNetV2 is trained as its paper does: RMSProp with momentum and a rate that decays by 2 %
    # an epoch. At that rate the weights outrun the running statistics of the batch norms, so those
    # are measured again on training images after each epoch.
    if name == "mobilenetv2":
        return torch.optim.RMSprop(groups, lr=rate, alpha=0.9, momentum=0.9, eps=1e-3)
    if name == "encoder":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)


def train(name: str, epochs: int, rate: float, decay: float, output: Path) -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # channels that die would slow every step down
    generator = torch.Generator().manual_seed(0)
    images, labels = read_split("train")
    x = torch.from_numpy(images.copy())[:, None].float() / 127.5 - 1
    y = torch.from_numpy(labels.copy()).long()
    images, labels = read_split("t10k")
    test_x = torch.from_numpy(images.copy())[:, None].float() / 127.5 - 1
    test_y = torch.from_numpy(labels.copy()).long()

    model = NETWORKS[name]().to(memory_format=torch.channels_last)
    optimizer = optimizer_of(name, model, rate, decay)
    paper = name == "mobilenetv2"
    batch = 128
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / 500)
            * (0.98 ** (step / 468) if paper else 0.5 * (1 + math.cos(math.pi * step / steps)))
        ),
    )
    for epoch in range(epochs):
        started = time.monotonic()
        model.train()
        for indices in torch.randperm(len(x), generator=generator).split(batch):
            if len(indices) < batch:
                continue
            inputs = augment(x[indices], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=name != "encoder"):
                outputs = model(inputs)
            loss = functional.cross_entropy(outputs.float(), y[indices], label_smoothing=0.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        result = copy.deepcopy(model)
        if paper:
            torch.optim.swa_utils.update_bn(
                x[torch.randperm(len(x), generator=generator)[:12800]].split(128), result
            )
        print(
            f"epoch {epoch + 1}/{epochs} loss {float(loss.detach()):.3f} "
            f"test {accuracy(result, test_x, test_y):.4f} "
            f"weights int8 per tensor {per_tensor_accuracy(result, test_x[:2000], test_y[:2000]):.4f} "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        export(result, output)


def export(model: nn.Module, output: Path) -> None:
    """Write the ONNX file, batch norms unfolded and dynamic in its batch."""
    from onnxscript import ir, optimizer

    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    # The exporter's own optimization would fold batch norms; a transformer is endless without.
    transformer = any(isinstance(module, nn.LayerNorm) for module in model.modules())
    program = torch.onnx.export(
        model, (torch.zeros(2, 1, 28, 28),), dynamo=True, opset_version=18, optimize=transformer,
        input_names=["image"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False,
    )  # fmt: skip
    if not transformer:
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    for node in program.model.graph:
        node.metadata_props.clear()  # where in the source it came from: a quarter of the file
    ir.save(program.model, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("images")
    training = commands.add_parser("train")
    training.add_argument("network", choices=sorted(NETWORKS))
    training.add_argument("--epochs", type=int, default=30)
    training.add_argument("--rate", type=float, default=0.1)
    training.add_argument("--decay", type=float, default=5e-4)
    training.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.command == "images":
        write_images()
        return
    output = options.output or TESTDATA / f"{options.network}.onnx"
    train(options.network, options.epochs, options.rate, options.decay, output)


if __name__ == "__main__":
    main()
