"""The site as slow clients meet it in a test: it waits two seconds for a request where it would wait two minutes."""

# isort: off
from project.asgi import application  # sets Django up
from project import daphne_requests
# isort: on

__all__ = ["application"]

daphne_requests.RECEIVE_MAX_S = 2.0
daphne_requests.LINGER_S = 1.0
