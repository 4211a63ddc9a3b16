"""The model as a value: a private `ModelProto`, where it came from, and its fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import ModelProto, TensorProto, ValueInfoProto

from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.shown import Shown

Dimension = int | str | None
"""A known size, a named size such as "batch", or nothing known."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of a graph input or output.

    Text has NumPy's text for its type; what is no tensor, a sequence for example, has objects.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[Dimension, ...] | None

    @classmethod
    def of(cls, info: ValueInfoProto) -> TensorSpec:
        tensor = info.type.tensor_type
        dtype: DTypeLike = np.dtype(object)
        if tensor.elem_type == TensorProto.STRING:
            dtype = np.dtype(str)
        elif tensor.elem_type:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return cls(info.name, np.dtype(dtype), shape_of(info))

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} {self.dtype.name}"
        sizes = "×".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype.name} {sizes}"


def shape_of(info: ValueInfoProto) -> tuple[Dimension, ...] | None:
    """The declared shape; None where even the rank is unknown.

    Some exporters write −1 for an axis of any size.
    """
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or None)
        for d in tensor.shape.dim
    )


@dataclass(frozen=True, eq=False)
class Model(Shown):
    """An ONNX model that nothing changes in place.

    Attributes:
        message: shared, not copied: read it, never write to it. Rewriting goes through
            `onnxq.model.rewrite.edit`, which copies. The weights are in it, but for those of a
            large model, which are parked in files, see `onnxq.model.external`: then it is a copy
            of what was given, and good for nobody else.
        stored: bytes of the file that it was read from as it is; shapes are inferred beside them.
    """

    message: ModelProto
    source: Path | None = None
    stored: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", external.settled(self.message))

    @classmethod
    def adopt(
        cls, proto: ModelProto, source: Path | None = None, stored: int | None = None
    ) -> Model:
        """A model of a message that nobody else has, whose weights are parked without a copy."""
        external.settle(proto)
        return cls(proto, source, stored)

    @property
    def proto(self) -> ModelProto:
        """The whole model as one message, for others; read it, never write to it.

        Raises:
            ModelError: its weights are more than one message holds.
        """
        if external.is_split(self.message):
            raise ModelError(
                f"the weights of {self.name} are more than one message holds",
                hint="onnxq.save writes them beside the model's file",
            )
        return external.inlined(self.message)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the whole model, weights included, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        skeleton = ModelProto()
        skeleton.CopyFrom(self.message)
        for tensor in skeleton.graph.initializer:
            digest.update(tensor.name.encode())
            digest.update(external.take_raw(tensor).data)
        digest.update(skeleton.SerializeToString(deterministic=True))
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """What to call the model in tables: its file name, or the name of its graph."""
        return self.source.name if self.source else self.message.graph.name or "model"

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs a caller must feed: graph inputs that no initializer gives a value."""
        given = {tensor.name for tensor in self.message.graph.initializer}
        return tuple(TensorSpec.of(i) for i in self.message.graph.input if i.name not in given)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec.of(o) for o in self.message.graph.output)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next(
            (o.version for o in self.message.opset_import if o.domain in {"", "ai.onnx"}), 0
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.message.metadata_props}

    @property
    def size(self) -> int:
        """Bytes of its file, or of the serialized model, weights in files of their own included."""
        if self.stored is not None:
            return self.stored
        parked = filter(external.is_parked, self.message.graph.initializer)
        return self.message.ByteSize() + sum(external.byte_size(each) or 0 for each in parked)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.message.graph.node)} nodes, opset {self.opset})"


def with_metadata(model: Model, entries: dict[str, str]) -> Model:
    """The same model with `entries` added to its metadata, replacing those of the same key."""
    proto = ModelProto()
    proto.CopyFrom(model.message)
    merged = model.metadata | entries
    onnx.helper.set_model_props(proto, dict(sorted(merged.items())))
    return Model.adopt(proto, model.source)
