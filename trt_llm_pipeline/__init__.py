"""Builds TensorRT-LLM engines from a YAML config: download, convert, quantize, build, package."""
