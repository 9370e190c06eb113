# Evaluation: lm-eval on top of our train image (BASE_IMAGE), so that both share the large layers.
# pip sees what /opt/venv holds and installs only what is missing, aside; the copy adds it to /opt/venv.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
LABEL io.rdagent-ft.build-stage=lm-eval
COPY requirements.txt constraints.txt /build/
COPY wheels/ /wheels/
RUN /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      --no-warn-script-location --prefix /opt/added -r /build/requirements.txt -c /build/constraints.txt

FROM ${BASE_IMAGE}
ARG VARIANT
COPY --from=build /opt/added/ /opt/venv/
