"""What the embedded CPU toolchain's scripts share.

    console       exit codes and one-sentence errors
    dtypes        the storage types, as numpy and ONNX know them
    torch_pickle  `pytorch_model.bin` without torch and without running a pickle's code
    tensors       a Hugging Face model directory as a lazy table of tensors
    spec          the one description of a decoder that graph, engine and runtime share
    gpt2, llama   Hugging Face models: configuration, names, weights
    ft_checkpoint the FT checkpoint of 0.5 to 0.7.1, written and read
    unified       the unified checkpoint of 0.8 and later, written and read
    weights       the lazy table of a model's weights
    quantization  int8 weight-only
    rope          frequencies of rotary positions
    graph         the ONNX graph of a decoder with a KV cache
    compiler      graph and weights through ONNX Runtime into an engine file
    engine_file   the container: header, graph, weights
    engine_dir    the engine and its config.json, written
    legacy_build  what the build.py scripts of 0.7.1 share
    convert_options, unified_build  what the converters and trtllm-build of 0.9 take
    runtime       an engine directory, loaded, generating
    tokenizer     tokenizer.json, tokenizer.model, or vocab.json with merges.txt

The scripts import these after their arguments are parsed, so that a mistake in the arguments is told at once.
"""
