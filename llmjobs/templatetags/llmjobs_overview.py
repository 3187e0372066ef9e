"""`{% overview %}`: the overview, for an index of the admin; nothing for who may not see jobs.

A page that has it links `llmjobs/admin.css` and `llmjobs/admin_overview.css`.
"""

from typing import Any

from django import template
from django.http import HttpRequest

from llmjobs.admin.overview import page

register = template.Library()


@register.inclusion_tag("admin/llmjobs/overview/overview.html", takes_context=True)
def overview(context: dict[str, Any]) -> dict[str, Any]:
    request: HttpRequest = context["request"]
    return {"overview": page.context(request)} if page.may_see(request) else {}
