"""A model on its way to another process: the file both can read, or its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from onnx import ModelProto

from onnxq.errors import ModelError, UsageError
from onnxq.model import external
from onnxq.model.files import load
from onnxq.model.model import Model


@dataclass(frozen=True)
class PortableModel:
    """What it takes to have the model elsewhere.

    Attributes:
        path: absolute; None for a model that came from no file, whose bytes are `content`.
        fingerprint: of the model.
    """

    path: Path | None
    content: bytes
    fingerprint: str

    @classmethod
    def of(cls, model: Model) -> PortableModel:
        """Raises `UsageError` for a model above 2 GB that came from no file."""
        if model.source is not None and model.source.is_file():
            return cls(model.source.absolute(), b"", model.fingerprint)
        if external.is_split(model.message):
            raise UsageError("a model of this size is read from a file", hint="save it first")
        return cls(
            None,
            external.inlined(model.message).SerializeToString(deterministic=True),
            model.fingerprint,
        )

    def unpack(self) -> Model:
        """The model, read once in each process.

        Raises:
            ModelError: the file is missing here, or holds another model.
        """
        return _unpack(self)


@lru_cache(maxsize=4)
def _unpack(portable: PortableModel) -> Model:
    if portable.path is None:
        proto = ModelProto()
        proto.ParseFromString(portable.content)
        return Model.adopt(proto)
    model = load(portable.path)
    if model.fingerprint != portable.fingerprint:
        raise ModelError(f"{portable.path}: the worker reads another model under this name")
    return model
