"""client.js and the pure modules of the page, tested in Node: the cases stand in the .mjs files beside this one."""

import subprocess

from tests.console.javascript import find_node, run_tests


def test_client_js_keeps_its_promises_against_a_server_that_misbehaves():
    run_tests("client.test.mjs")


def test_what_waits_in_client_js_keeps_its_order_and_makes_no_second_job():
    run_tests("client_line.test.mjs")


def test_display_js_says_what_people_read():
    run_tests("display.test.mjs")


def test_the_page_asks_says_and_keeps_what_it_should():
    run_tests("page.test.mjs")


def test_a_machine_without_node_has_that_of_playwright(monkeypatch, tmp_path):
    """A build machine has what `.ci/run` installs, and Debian's Node may be too old."""
    (old := tmp_path / "node").write_text("#!/bin/sh\necho v18.20.4\n")
    old.chmod(0o755)
    for path in ("", f"{tmp_path}:/usr/bin:/bin"):
        monkeypatch.setenv("PATH", path)
        found = find_node()
        assert found and found != str(old)
        assert subprocess.run([found, "-p", "6 * 7"], capture_output=True, text=True, check=True).stdout == "42\n"
