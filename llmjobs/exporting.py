"""The jobs of an export as lines of a file: JSON Lines as the API shows a job, or CSV.

Owns what a line holds and how many jobs are in memory at once, which is what bounds it: a chunk, by the key of the
operation's items, a short statement each; nothing is held between two. Does not own who may see what: `has_content`
says whether prompts, outputs and what may quote them are read at all.
"""

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from llmjobs.models import Job, OperationItem
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.representation import jobs_json

CHUNK = 500
CHUNK_WITH_CONTENT = 20  # a request and an output may have some megabytes each
CONTENT = ("output", "output_text")
UNSEEN = (*CONTENT, "links", "position", "eta_s", "blocked_by")
BODIES = ("request__body", "result__output", "result__output_text", "result__error_message")
FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet would calculate  # noqa: RUF001 - wide ones too
BLANKS = "\ufeff\u200b"  # beside those of `str.isspace`, what a spreadsheet may skip before it looks
COLUMNS = (
    "id", "status", "client", "tier", "endpoint", "model", "served_by", "priority", "size", "attempt", "failures",
    "created_at", "started_at", "finished_at", "est_input_tokens", "est_output_tokens", "input_tokens",
    "output_tokens", "cost_usd", "error_code", "error_class", "provider_status", "user", "idempotency_key",
    "prompt_hash", "metadata",
)  # fmt: skip
CONTENT_COLUMNS = ("error_message", "request", "output_text")


def lines(operation_id: int, *, format: str, has_content: bool) -> Iterator[tuple[str, int]]:
    """(text, how many jobs it has), a chunk each, in the order of the ids; a CSV begins with its header, of none."""
    if format == "csv":
        columns = COLUMNS + (CONTENT_COLUMNS if has_content else ())
        yield _csv([columns]), 0
    for jobs in chunks(operation_id, has_content=has_content):
        if format == "csv":
            yield _csv([_cells(job, has_content) for job in jobs]), len(jobs)
        else:
            yield _json_lines(jobs, has_content), len(jobs)


def chunks(operation_id: int, *, has_content: bool) -> Iterator[list[Job]]:
    """Those that are still there. What retention removed since is not told of."""
    after_id, size = 0, CHUNK_WITH_CONTENT if has_content else CHUNK
    related = Job.objects.select_related(*JOB_RELATED)
    while True:
        items = OperationItem.objects.filter(operation_id=operation_id, job_id__gt=after_id).order_by("job_id")
        if not (ids := list(items.values_list("job_id", flat=True)[:size])):
            return
        after_id = ids[-1]
        jobs = related.filter(pk__in=ids).order_by("pk")
        yield list(jobs if has_content else jobs.defer(*BODIES))


def _json_lines(jobs: list[Job], has_content: bool) -> str:
    if not has_content:
        for job in jobs:
            _forget_content(job)
    shown = jobs_json(jobs, with_place=False)
    return "".join(_json_line(job, line, has_content) for job, line in zip(jobs, shown, strict=True))


def _json_line(job: Job, shown: dict[str, Any], has_content: bool) -> str:
    line = {name: value for name, value in shown.items() if name not in UNSEEN}
    line["served_by"] = job.pool.name
    if has_content:
        request = getattr(job, "request", None)
        line["request"] = json.loads(request.body) if request and request.body else None
        line |= {name: shown[name] for name in CONTENT}
    elif line["error"]:
        del line["error"]["message"]
    return json.dumps(line, ensure_ascii=False) + "\n"


def _forget_content(job: Job) -> None:
    """What was not read is not asked for one by one either."""
    if result := getattr(job, "result", None):
        result.output, result.output_text, result.error_message = None, "", None


def _cells(job: Job, has_content: bool) -> list[str]:
    request, result = getattr(job, "request", None), getattr(job, "result", None)
    usage = (result.usage if result else None) or {}
    cells: list[Any] = [
        job.public_id, job.state, job.client.name, job.tier.name, job.endpoint, (job.home or job.pool).name,
        job.pool.name, job.get_priority_display(), job.get_size_display(), job.attempt, job.failures,
        job.created_at, job.started_at, job.finished_at, job.est_input_tokens, job.est_output_tokens,
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
        result.cost_usd if result else None, result.error_code if result else None,
        result.error_class if result else None, result.provider_status if result else None,
        request.user if request else None, request.idempotency_key if request else None,
        request.prompt_hash if request else None,
        json.dumps(request.metadata, ensure_ascii=False) if request and request.metadata else None,
    ]  # fmt: skip
    if has_content:
        cells += [
            result.error_message if result else None, request.body if request else None,
            result.output_text if result else None,
        ]  # fmt: skip
    return [_cell(value) for value in cells]


def _cell(value: Any) -> str:
    """As text that no spreadsheet takes for a formula: these words are clients', and providers'."""
    if value is None:
        return ""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    is_formula = text.startswith(FORMULA) or _stripped(text).startswith(FORMULA)
    return f"'{text}" if isinstance(value, str) and is_formula else text


def _stripped(text: str) -> str:
    return text.lstrip().lstrip(BLANKS).lstrip()


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
