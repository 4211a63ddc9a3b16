# onnxq with the CPU build of ONNX Runtime:
#   docker build -t onnxq-cpu . && docker run --rm -v "$PWD:/work" onnxq-cpu quantize model.onnx --data images/ …
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY onnxq ./onnxq
RUN python -m pip install --no-cache-dir '.[cpu,fast,text]'
RUN onnxq doctor
WORKDIR /work
ENTRYPOINT ["onnxq"]
