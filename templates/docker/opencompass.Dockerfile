# OpenCompass with the old packages it needs. It asks a server by HTTP and needs no GPU: both variants
# hold the same, apart from torch's build.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
LABEL io.rdagent-ft.build-stage=opencompass
COPY requirements.txt constraints.txt /build/
COPY wheels/ /wheels/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      -r /build/requirements.txt -c /build/constraints.txt

FROM ${BASE_IMAGE}
ARG VARIANT
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
