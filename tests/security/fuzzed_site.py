"""The site as a fuzzer meets it: event streams end by themselves after a moment, since it waits for every answer."""

# isort: off
from project.asgi import application  # sets Django up
from llmjobs.live import following
# isort: on

__all__ = ["application"]

following.VIEW_FOR_S = 0.05
