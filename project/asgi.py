"""What a web server runs, any that speaks ASGI (`daphne project.asgi:application`)."""

import gc
import os
import sys

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()  # sets Django up, which what follows needs

from django.db import connections  # noqa: E402

from llmjobs.conf import conf  # noqa: E402
from llmjobs.database import PREPARE_THRESHOLD  # noqa: E402
from llmjobs.live import routing  # noqa: E402
from project import daphne_requests  # noqa: E402
from project.bodies import bounded  # noqa: E402
from project.one_hop import one_hop  # noqa: E402
from project.settings import WEB_POOL  # noqa: E402

# A new connection a request costs several milliseconds, most of them for what Postgres has to learn anew. Here and not
# in the settings, since only a web server lives long enough and is closed by nobody.
if "pytest" not in sys.modules:  # a test that asks the application in its own process keeps its own connection
    options = connections.settings["default"]["OPTIONS"]
    options["pool"] = WEB_POOL
    options["prepare_threshold"] = PREPARE_THRESHOLD if conf.prepare_statements else None

daphne_requests.install()
application = daphne_requests.in_pieces(routing.application(bounded(one_hop(http))))

# A full collection stops the loop, and so all viewers, for as long as it takes to walk what lives; by CPython's
# defaults that was the tail of their latency (p95 of 1,000 viewers: 525 ms, and 319 without). What is there now stays.
if "pytest" not in sys.modules:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
