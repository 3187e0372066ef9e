"""The HTTP API of the contract: parse, call one verb of `queue.py`, render.

A request meets, in this order: middleware.py (its id; the shape of every error), authentication.py (who asks,
with which scope), incoming.py (size, UTF-8, JSON), views.py, and on the way out `representation.py` or
errors.py. listing.py pages through jobs; schema.py is what OpenAPI says of it all. Server-Sent Events are
served by live/, under the same prefix.
"""
