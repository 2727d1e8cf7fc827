# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements.txt ./
# Wheels only, each with its locked hash: nothing is compiled and nothing unlocked is fetched.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement requirements.txt
COPY app /opt/adscent/app
COPY models /opt/adscent/models
COPY jobs /opt/adscent/jobs
COPY migrations /opt/adscent/migrations
COPY schemas /opt/adscent/schemas
COPY features.toml LICENSE /opt/adscent/
# The console script that stands in for the checkout's bootstrap script; the workers of
# `serve` import it too. The code is compiled here because a running container cannot write to it.
RUN printf '%s\n' '#!/opt/venv/bin/python' 'from app.cli.main import main' '' \
        'if __name__ == "__main__":' '    main()' > /opt/venv/bin/adscent \
    && chmod 755 /opt/venv/bin/adscent \
    && /opt/venv/bin/python -m compileall -q /opt/adscent

FROM python:3.12-slim
# numba's OpenMP layer needs the system's libgomp; any version of the base image's release will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin adscent \
    && install --directory --owner adscent --group adscent /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/adscent /opt/adscent
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/adscent \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    NUMBA_CACHE_DIR=/data/numba \
    ADSCENT_HOME=/data \
    ADSCENT_FEATURES=/opt/adscent/features.toml \
    ADSCENT_HOST=0.0.0.0 \
    ADSCENT_METRICS_HOST=0.0.0.0
# Everything that is written goes to /data. Temporary files do too where /tmp cannot be written:
# the working directory is the last place that Python tries.
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8080 8081 9090 9091
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["adscent"]
CMD ["serve"]
