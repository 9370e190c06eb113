# Training, merging and data scripts. Pins come from images.toml through requirements.txt and
# constraints.txt, which `rdagent-ft images build` writes into the build context.
# No BuildKit syntax: the legacy builder must read this too.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
LABEL io.rdagent-ft.build-stage=train
COPY requirements.txt constraints.txt /build/
COPY wheels/ /wheels/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      -r /build/requirements.txt -c /build/constraints.txt

FROM ${BASE_IMAGE}
ARG VARIANT=cpu
# Triton compiles a launcher at run time: a compiler, the C library's headers and Python's. A base image
# of Debian's Python has no Python.h; python.org's images have it.
RUN if [ "$VARIANT" = cuda ] && ! command -v gcc >/dev/null; then \
      debian_python=$(python3 -c 'import sys; print("python3-dev" if sys.prefix == "/usr" else "")') \
      && apt-get update \
      && apt-get install -y --no-install-recommends gcc libc6-dev $debian_python \
      && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
