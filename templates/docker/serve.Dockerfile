# A server of the base model and its adapters: vLLM, in its CPU build where there is no GPU.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
LABEL io.rdagent-ft.build-stage=serve
COPY requirements.txt constraints.txt /build/
COPY wheels/ /wheels/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      -r /build/requirements.txt -c /build/constraints.txt
# The CPU build of vLLM fails to start when builds of these for CUDA came with it, and needs none of them.
RUN if [ "$VARIANT" = cpu ]; then \
      /opt/venv/bin/python -m pip uninstall -y torchvision torchaudio torchcodec; \
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
# vLLM's CPU build binds its threads to cores with libnuma.
RUN if [ "$VARIANT" = cpu ] && ! ldconfig -p | grep -q libnuma.so.1; then \
      apt-get update \
      && apt-get install -y --no-install-recommends libnuma1 \
      && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/venv /opt/venv
# Adapters are loaded and unloaded while the server runs.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
