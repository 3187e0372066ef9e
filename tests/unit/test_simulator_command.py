"""manage.py simulateprovider, where it can't begin."""

import socket

import pytest
from django.core.management import CommandError, call_command


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"^--port: expected one that is free, .* got {port}, which is in use"):
            call_command("simulateprovider", port=port)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_told_in_one_line(port):
    with pytest.raises(CommandError, match=rf"^--port: expected a whole number from 0 to 65535, got {port}$"):
        call_command("simulateprovider", port=port)
