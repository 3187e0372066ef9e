"""What people see where there is nothing, or where something broke."""

import pytest
from django.template.loader import get_template
from django.views.defaults import server_error


@pytest.mark.django_db
def test_an_unknown_address_has_a_page_with_a_way_back(client):
    response = client.get("/nothing/")
    html = response.content.decode()
    assert response.status_code == 404
    assert "Page not found" in html
    assert 'href="/"' in html


def test_the_page_for_a_crash_needs_no_request_and_no_database(rf):
    """Django renders it without context processors; here no database is allowed either."""
    response = server_error(rf.get("/"))
    assert response.status_code == 500
    assert "Something went wrong" in response.content.decode()


@pytest.mark.parametrize("code", ["400", "403", "403_csrf", "404", "500"])
def test_each_error_has_a_page_of_this_site(code):
    html = get_template(f"{code}.html").render({})
    assert "<h1>" in html
    assert "llmjobs/app.css" in html
