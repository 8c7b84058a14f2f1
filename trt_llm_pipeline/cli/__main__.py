"""`python -m trt_llm_pipeline.cli`."""

from trt_llm_pipeline.cli.commands import main

if __name__ == "__main__":
    main()
