# callsplit in a slim image: non-root, no shell needed to run, its own health check.
ARG BASE=python:3.13-slim-trixie
FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential
WORKDIR /src
COPY pyproject.toml setup.cfg setup.py README.md LICENSE ./
COPY proxy proxy
COPY backends backends
# The hot path becomes C (setup.py); mypy and the compiler stay behind.
RUN CALLSPLIT_COMPILE=1 pip wheel --no-cache-dir --no-deps -w /wheels .
# What stays Python becomes byte code here: nothing is written later, and every start would do it.
RUN python -m venv /opt/callsplit \
 && /opt/callsplit/bin/pip install --no-cache-dir /wheels/callsplit-*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="callsplit" \
      org.opencontainers.image.description="Splits live phone calls between an MCP backend and a webhook backend." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/callsplit /opt/callsplit
COPY rules /app/rules
WORKDIR /app
ENV PATH=/opt/callsplit/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN mkdir /app/state && chown 65532:65532 /app/state
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["callsplit", "health", "--live"]
ENTRYPOINT ["callsplit"]
CMD ["serve"]
