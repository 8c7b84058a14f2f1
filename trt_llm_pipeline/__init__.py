"""Builds TensorRT-LLM engines from a YAML config: download, convert, quantize, build, package."""

__version__ = "0.1.0"
