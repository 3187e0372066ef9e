"""client.js and the pure modules of the page, tested in Node: the cases stand in the .mjs files beside this one."""

from tests.console.javascript import run_tests


def test_client_js_keeps_its_promises_against_a_server_that_misbehaves():
    run_tests("client.test.mjs")


def test_what_waits_in_client_js_keeps_its_order_and_makes_no_second_job():
    run_tests("client_line.test.mjs")


def test_display_js_says_what_people_read():
    run_tests("display.test.mjs")


def test_the_page_asks_says_and_keeps_what_it_should():
    run_tests("page.test.mjs")
