"""What engine directories and tokenizers consist of, for every release of TensorRT-LLM."""
