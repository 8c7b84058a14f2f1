"""`python -m trt_llm_pipeline.cli`."""

from trt_llm_pipeline.cli import main

if __name__ == "__main__":
    main()
