"""What a web server runs, any that speaks ASGI (`daphne project.asgi:application`)."""

import os
import sys

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()  # sets Django up, which what follows needs

from django.db import connections  # noqa: E402

from llmjobs.live import routing  # noqa: E402
from project import daphne_requests  # noqa: E402
from project.bodies import bounded  # noqa: E402
from project.settings import WEB_POOL  # noqa: E402

# A new connection a request costs several milliseconds, most of them for what Postgres has to learn anew. Here and not
# in the settings, since only a web server lives long enough and is closed by nobody.
if "pytest" not in sys.modules:  # a test that asks the application in its own process keeps its own connection
    connections.settings["default"]["OPTIONS"]["pool"] = WEB_POOL

daphne_requests.install()
application = routing.application(bounded(http))
