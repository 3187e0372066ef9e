"""The site's settings, from environment variables (and `.env` if there is one); .env.example lists them all.

Without DATABASE_URL an embedded Postgres is started here, because this is the one place that every road
passes: manage.py, daphne, pytest. Its URL goes into the environment, so that child processes use the same
server and start none.
"""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from llmjobs import __version__, conf
from project import embedded_postgres, mail
from project.database_url import connection_settings
from project.secret_key import stored_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
IS_TEST_RUN = "PYTEST_VERSION" in os.environ

env = environ.Env()
if not IS_TEST_RUN and (BASE_DIR / ".env").exists():  # a developer's provider keys have no place in a test
    env.read_env(BASE_DIR / ".env")

LLMJOBS = conf.from_environ(os.environ)
globals().update(LLMJOBS)
DATA_DIR = BASE_DIR / LLMJOBS.get("LLMJOBS_DATA_DIR", conf.default("data_dir"))

# E-mail: what operators are told of, and Django's own to ADMINS. Before the database: a wrong variable starts none.

ADMINS = mail.addresses("ADMINS", env.str("ADMINS", default=""))
globals().update(mail.server("EMAIL_URL", env.str("EMAIL_URL", default="")))
EMAIL_TIMEOUT = 10
EMAIL_SUBJECT_PREFIX = "[llmjobs] "
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="") or "llmjobs@localhost"
SERVER_EMAIL = env.str("SERVER_EMAIL", default="") or DEFAULT_FROM_EMAIL

# Database.

if not os.environ.get("DATABASE_URL"):
    try:
        url = embedded_postgres.ensure_running(
            DATA_DIR, binaries=LLMJOBS.get("LLMJOBS_PG_BIN", conf.default("pg_bin")), throwaway=IS_TEST_RUN
        )
    except (embedded_postgres.EmbeddedPostgresError, PermissionError) as error:
        raise ImproperlyConfigured(f"DATABASE_URL is not set, and the embedded Postgres: {error}") from None
    os.environ["DATABASE_URL"] = os.environ["EMBEDDED_POSTGRES_URL"] = url
IS_EMBEDDED = os.environ["DATABASE_URL"] == os.environ.get("EMBEDDED_POSTGRES_URL")

DATABASES = {"default": connection_settings(os.environ["DATABASE_URL"])}
# Under ASGI a kept connection belongs to a thread that may never come back: a web server has a pool instead (asgi.py).
DATABASES["default"]["CONN_MAX_AGE"] = 0
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
WEB_POOL = {"min_size": 1, "max_size": 6, "timeout": 5, "max_idle": 60, "reconnect_timeout": 5}
# Who needs another address for LISTEN has a pooler here, and cursors do not outlive its transactions.
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = bool(LLMJOBS.get("LLMJOBS_LISTEN_DSN"))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Security. A site with a database of its own, and without DEBUG, is taken for one that is reached by HTTPS.

DEBUG = conf.flag(os.environ, "DEBUG", default=False)
IS_LOCAL = DEBUG or IS_EMBEDDED or IS_TEST_RUN
SECRET_KEY = env.str("SECRET_KEY", default="") or stored_secret_key(DATA_DIR, allowed=IS_LOCAL)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
HTTPS_ONLY = conf.flag(os.environ, "HTTPS_ONLY", default=not IS_LOCAL)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
SECURE_SSL_REDIRECT = conf.flag(os.environ, "SSL_REDIRECT", default=HTTPS_ONLY)
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # scraped from inside, by a token that a redirect would not take back
SECURE_HSTS_SECONDS = 365 * 86_400 if HTTPS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = conf.flag(os.environ, "HSTS_SUBDOMAINS", default=HTTPS_ONLY)
SILENCED_SYSTEM_CHECKS = ["security.W021"]  # whether browsers shall know the domain beforehand is its owner's to say
if conf.flag(os.environ, "TRUST_X_FORWARDED_PROTO", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"

# Applications.

INSTALLED_APPS = [
    "daphne",  # before staticfiles: its runserver speaks ASGI
    "llmjobs",  # "channels" stays out: it would bring a runworker of its own
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",  # Django 6 asks for it where models have arrays
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "llmjobs.api.middleware.RequestIdMiddleware",  # around all others: what they refuse has an id too
    "llmjobs.monitoring.health.probes",  # before who looks at the host, and who asks for HTTPS
    "django.middleware.security.SecurityMiddleware",
    "llmjobs.console.csp.ContentSecurityPolicyMiddleware",
    "project.static_files.static_files",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# Static files come out of the apps; collectstatic is for who wants another server to send them.

STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=None)
WHITENOISE_USE_FINDERS = True
WHITENOISE_MIMETYPES = {".ts": "text/plain"}  # the types of client.js, and no film

# The HTTP API.

REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "llmjobs.api.errors.exception_handler",
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "llmjobs.api.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
}

SPECTACULAR_SETTINGS = {
    "TITLE": "llmjobs",
    "DESCRIPTION": "LLM calls as jobs: submit, follow live, cancel.",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "DEFAULT_GENERATOR_CLASS": "llmjobs.api.schema.Generator",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# Logs: events as key=value or as JSON, a line each, to stderr, without what anybody sent. The root's level is the
# server's own.

LOG_FORMATS = {
    "line": {
        "()": "project.logs.LineFormatter",
        "fmt": "at=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
        "shows_all": DEBUG,
    },
    "json": {"()": "project.logs.JsonFormatter", "shows_all": DEBUG},
}
log_format = LLMJOBS.get("LLMJOBS_LOG_FORMAT", conf.default("log_format"))
if log_format not in LOG_FORMATS:
    raise ImproperlyConfigured(f"LLMJOBS_LOG_FORMAT: expected {' or '.join(LOG_FORMATS)}, got {log_format!r}")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": LOG_FORMATS,
    "filters": {"is_no_debugging": {"()": "django.utils.log.RequireDebugFalse"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": log_format},
        "mail": {
            "class": "django.utils.log.AdminEmailHandler",
            "level": "ERROR",
            "filters": ["is_no_debugging"],
        },
    },
    "root": {"handlers": ["stderr"]},
    "loggers": {
        "django": {"handlers": ["mail"], "level": "INFO"},  # and the root's
        "llmjobs": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "project": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}
