#!/usr/bin/env bash
# The two classic examples on real data: SqueezeNet's quantization details, and what int8 does to
# MobileNetV2 without and with equalization. Run by `make demo`.
set -euo pipefail
onnxq=${ONNXQ:-onnxq}
work=${WORK:-demo}
images=testdata/fashion-mnist
gray='unit,color=gray,mean=0.5,std=0.5'
mkdir -p "$work"

echo
echo '── SqueezeNet: quantize, look at the details, validate ─────────────────────────'
"$onnxq" quantize testdata/squeezenet.onnx -o "$work/squeezenet.int8.onnx" \
  --data "$images/calibration" --preprocess "$gray"
"$onnxq" inspect "$work/squeezenet.int8.onnx"
"$onnxq" validate testdata/squeezenet.onnx "$work/squeezenet.int8.onnx" \
  --data "$images/test" --preprocess "$gray"

echo
echo '── MobileNetV2, int8 weights per tensor: float / int8 / int8 equalized ──────────'
"$onnxq" quantize testdata/mobilenetv2.onnx -o "$work/mobilenetv2.int8.onnx" \
  --data "$images/calibration" --preprocess "$gray" \
  --weights per-tensor --no-equalize --no-bias-correction --rounding nearest --ranges minmax
"$onnxq" quantize testdata/mobilenetv2.onnx -o "$work/mobilenetv2.int8-equalized.onnx" \
  --data "$images/calibration" --preprocess "$gray" --weights per-tensor
"$onnxq" validate testdata/mobilenetv2.onnx \
  "$work/mobilenetv2.int8.onnx" "$work/mobilenetv2.int8-equalized.onnx" \
  --data "$images/test" --preprocess "$gray"
