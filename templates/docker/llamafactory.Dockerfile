# LLaMA-Factory with the old packages it needs.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
LABEL io.rdagent-ft.build-stage=llamafactory
COPY requirements.txt constraints.txt /build/
COPY wheels/ /wheels/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      -r /build/requirements.txt -c /build/constraints.txt
# Text training on CPU needs neither, and builds for CUDA fail at import beside a CPU torch. torchaudio is
# imported all the same, so an empty module stands in.
RUN if [ "$VARIANT" = cpu ]; then \
      /opt/venv/bin/python -m pip uninstall -y torchvision torchaudio \
      && packages=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
      && mkdir -p "$packages/torchaudio" \
      && touch "$packages/torchaudio/__init__.py"; \
    fi

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
