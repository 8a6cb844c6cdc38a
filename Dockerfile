# The server of RKLLama, for arm64 (with the NPU, or without) and amd64. compose.yaml builds and runs it.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/rkllama
COPY packaging/requirements.txt packaging/
RUN /opt/rkllama/bin/pip install --no-cache-dir --require-hashes -r packaging/requirements.txt
COPY pyproject.toml setup.py MANIFEST.in README.md CHANGELOG.md LICENSE ./
COPY rkllama rkllama
RUN /opt/rkllama/bin/pip install --no-cache-dir --no-deps . \
    && /opt/rkllama/bin/pip check \
    && /opt/rkllama/bin/python -m compileall -q /opt/rkllama

FROM ${BASE}
# What librkllmrt.so and llama.cpp load, and a user whose number compose.yaml's volume and key file rely on.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 rkllama \
    && useradd --uid 10001 --gid rkllama --home-dir /var/lib/rkllama --create-home rkllama
COPY --from=build /opt/rkllama /opt/rkllama
# Only inside the container is this every address; what reaches it from outside is up to --publish.
ENV PATH=/opt/rkllama/bin:$PATH RKLLAMA_HOME=/var/lib/rkllama RKLLAMA_HOST=0.0.0.0:8080
USER rkllama
WORKDIR /var/lib/rkllama
VOLUME /var/lib/rkllama
EXPOSE 8080
HEALTHCHECK --interval=1m --timeout=10s --start-period=30s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
ENTRYPOINT ["rkllama"]
CMD ["serve"]
