"""The prediction server in a container, for machines with Docker and a GPU."""

from __future__ import annotations

from trt_llm_pipeline.testing.servers import PROJECT_ROOT, CogServer


class CogContainer(CogServer):
    """`docker run` of an image, on the host's network, with the interface of a local server process."""

    def __init__(self, image: str) -> None:
        super().__init__({})
        self._argv = ["docker", "run", "--rm", "--gpus=all", "--net=host", "--ulimit", "memlock=-1"]
        self._argv += ["--shm-size=20g", "--workdir", "/src", "--volume", f"{PROJECT_ROOT}:/src"]
        self._argv += ["--env", f"PORT={self.port}", image, "python", "-m", "cog.server.http"]
