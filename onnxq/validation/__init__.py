"""Compare float and quantized models: executions, metrics and gates."""
