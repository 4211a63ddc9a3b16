#!/usr/bin/env bash
# What onnxq can say on a machine with an NVIDIA GPU: runs the tests marked `gpu`, quantizes over
# CUDA and over the CPU, and prints one table of throughput, memory and agreement on the CUDA provider. See docs/gpu.md.
#
#   scripts/gpu_check.sh [VENV]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-gpu}

command -v nvidia-smi >/dev/null || { echo 'no nvidia-smi: this machine has no NVIDIA GPU' >&2; exit 4; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

if [ ! -e "$venv/.installed" ]; then
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --upgrade pip
  "$venv/bin/python" -m pip install --quiet --editable '.[gpu,test]'
  touch "$venv/.installed"
fi

"$venv/bin/onnxq" doctor
"$venv/bin/python" -m pytest -m gpu -rs

# The same model quantized over both providers: the time of each, and how close each int8 model is to the float one.
data=testdata/fashion-mnist preprocess='unit,color=gray,mean=0.5,std=0.5'
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
for provider in cpu cuda; do
  echo "quantize --provider $provider"
  time "$venv/bin/onnxq" quantize testdata/mobilenetv2.onnx --data "$data/calibration" --preprocess "$preprocess" \
    --provider "$provider" -o "$work/$provider.onnx"
done
"$venv/bin/onnxq" validate testdata/mobilenetv2.onnx "$work/cpu.onnx" "$work/cuda.onnx" --data "$data/test" \
  --preprocess "$preprocess"

"$venv/bin/python" benchmarks/gpu.py testdata/mobilenetv2.onnx testdata/squeezenet.onnx \
  --calibration "$data/calibration" --test "$data/test" --preprocess "$preprocess"
