"""client.js and display.js, tested in Node: the cases stand in the .mjs files beside this one."""

from tests.console.javascript import run_tests


def test_client_js_keeps_its_promises_against_a_server_that_misbehaves():
    run_tests("client.test.mjs")


def test_display_js_says_what_people_read():
    run_tests("display.test.mjs")
