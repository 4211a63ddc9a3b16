"""Export one small network with both of PyTorch's exporters, at every operator set they write.

    pip install torch onnx onnxscript
    python scripts/export_pytorch.py testdata/exports

The files are in the repository: the tests that read them need no PyTorch. Weights are random, from
a fixed seed. Each file's metadata tell the exporter's version; `samples.npz` has inputs and the
outputs that PyTorch computes for them.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

OPSETS = range(11, 24)


class Small(nn.Module):
    """A little of all: inverted residual, upsampling, concat, transposed convolution, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        small = F.interpolate(F.silu(self.down(x)), scale_factor=2.0, mode="nearest")
        x = F.leaky_relu(self.up(torch.cat([x, small], 1)), 0.1)
        x = F.avg_pool2d(F.max_pool2d(x, 2), 2)
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, -1)
        attention = torch.softmax(q @ k.transpose(1, 2) * 12**-0.5, -1)
        tokens = tokens + attention @ v
        tokens = tokens + self.mlp(self.norm(tokens))
        return self.head(tokens.mean(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    model = Small()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
    return model.eval()


def export(model: nn.Module, x: torch.Tensor, path: Path, opset: int, *, dynamo: bool) -> str:
    """What is written, or why nothing is."""
    how = (
        {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}}
        if dynamo
        else {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                model, (x,), str(path), opset_version=opset, dynamo=dynamo, input_names=["x"],
                output_names=["y"], external_data=False, **how,
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - each exporter has its own
        path.unlink(missing_ok=True)
        return f"refused: {str(error).splitlines()[0][:80]}"
    proto = onnx.load(path)
    written = next(o.version for o in proto.opset_import if not o.domain)
    if written != opset:
        path.unlink()
        return f"not written: it gives opset {written}"
    proto.doc_string = ""
    for node in proto.graph.node:  # where in the source, which is long and a path of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return f"{path.stat().st_size:,} bytes"


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    model, x = network(), torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.savez(folder / "samples.npz", x=x.numpy(), y=model(x).numpy())
    warnings.simplefilter("ignore")
    for dynamo in (False, True):
        for opset in OPSETS:
            name = f"{'dynamo' if dynamo else 'torchscript'}-{opset}"
            print(name, export(model, x[:2], folder / f"{name}.onnx", opset, dynamo=dynamo))


if __name__ == "__main__":
    main()
