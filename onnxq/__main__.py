"""`python -m onnxq` is `onnxq`."""

from onnxq.cli import main

main()
