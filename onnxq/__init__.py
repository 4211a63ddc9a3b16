"""onnxq turns float ONNX models into int8 ones that keep their accuracy."""

__version__ = "0.1.0"
