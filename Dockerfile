# syntax=docker/dockerfile:1
#
# The GPU image: TensorRT-LLM, and beside it this service in a Python environment of its own.
#
#   docker build -t cog-trt-llm .
#   docker build -t cog-trt-llm --build-arg BASE_IMAGE=nvcr.io/nvidia/tensorrt-llm/release:1.0.0 .
#
# The default base is what `make -C docker release_build` makes in a TensorRT-LLM checkout. Any image will do
# that has Python 3.10 to 3.12, the tensorrt_llm package and NVIDIA's examples in /app/tensorrt_llm.
ARG BASE_IMAGE=tensorrt_llm/release:latest

# The service's packages, away from TensorRT-LLM's: the two need different versions of the same packages.
# Same base, so that the environment's interpreter is there in the final image.
FROM ${BASE_IMAGE} AS service

# Debian and Ubuntu keep venv's installer in a package of its own. It is not pinned (DL3008): the base image
# decides on the distribution, and with it on the versions that there are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/service

# Only the pins are copied here, so that this layer is made again when they change and not with every edit.
WORKDIR /build
COPY requirements/constraints.txt requirements/service.txt requirements/
COPY cpu_toolchain/requirements.txt cpu_toolchain/requirements.txt
# NVIDIA's images set PIP_CONSTRAINT for their own packages; it must not reach these.
RUN PIP_CONSTRAINT="" /opt/service/bin/python -m pip install --no-cache-dir \
    -c requirements/constraints.txt -r requirements/service.txt -r cpu_toolchain/requirements.txt

FROM ${BASE_IMAGE}

# The init forwards signals to the server's whole process group and reaps what builds leave behind.
# Not pinned (DL3008), for the same reason as above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*

COPY --from=service /opt/service /opt/service

# The root user, as in NVIDIA's images: a checkout or a disk that is mounted at /src belongs to somebody else.
WORKDIR /src
COPY . .

# `python` and `trt-llm-pipeline` are the service's; NVIDIA's scripts run in TRTLLM_PYTHON.
ENV PATH=/opt/service/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    TRTLLM_DIR=/app/tensorrt_llm \
    TRTLLM_PYTHON=/usr/bin/python3 \
    TRT_LLM_WORKSPACE=/src \
    COG_PREDICT_TYPE_STUB=predict.py:Predictor

# Editable, so that a checkout mounted at /src is what runs. The document describes the server's inputs.
RUN PIP_CONSTRAINT="" python -m pip install --no-cache-dir --no-deps -e . \
    && mkdir -p .cog \
    && python script/openapi_schema.py .cog/openapi_schema.json

EXPOSE 5000

HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-c", \
    "import json, urllib.request as r; s = json.load(r.urlopen('http://127.0.0.1:5000/health-check', timeout=5))['status']; raise SystemExit(s not in ('STARTING', 'READY', 'BUSY'))"]

ENTRYPOINT ["tini", "-g", "--"]
CMD ["python", "-m", "trt_llm_pipeline.server.guard"]
