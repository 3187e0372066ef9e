"""What a web server runs, any that speaks ASGI (`daphne project.asgi:application`)."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()  # sets Django up, which what follows needs

from llmjobs.live import routing  # noqa: E402

application = routing.application(http)
