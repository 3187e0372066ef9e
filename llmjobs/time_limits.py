"""An end to a statement that takes too long, over Django's connection, inside a transaction or not.

Invariant: the caller's own settings are back when the block is left.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connections, transaction
from psycopg.errors import QueryCanceled


class TooSlow(Exception):
    """The statement was ended by `time_limit`."""


@contextmanager
def time_limit(seconds: float, *, using: str) -> Iterator[None]:
    """Ends a statement inside that takes longer, with TooSlow. What was written inside is rolled back then."""
    connection = connections[using]
    is_nested = connection.in_atomic_block
    try:
        with transaction.atomic(using=using), connection.cursor() as cursor:
            if is_nested:  # else the limit goes with the transaction
                cursor.execute("select current_setting('statement_timeout')")
                before = cursor.fetchone()[0]
            cursor.execute("select set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
            yield
            if is_nested:
                cursor.execute("select set_config('statement_timeout', %s, true)", [before])
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TooSlow from error
        raise
