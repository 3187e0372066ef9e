"""What is wrong, by what was read: the bounds, and the sentences that say what was seen.

Pure: rows of sql/watch_*.sql go in, findings come out. Owns by how much something must be wrong; conf.py has the bounds
that a site may set. Invariant: what keeps an incident open has a lower bound than what opens it, where it is a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmjobs.conf import conf

STAYS = 0.8  # an open incident stays down to this part of what opens it
CRITICAL_BACKLOG = 4  # times the target
BUDGET_SHARES = {"critical": 1.0, "warning": 0.8}
BUDGET_MARGIN = 0.05  # of the budget: what is expected of a job is mostly more than what it costs
BUDGET_LEAST = min(BUDGET_SHARES.values()) - BUDGET_MARGIN
RISE = 2  # times the usual
WEBHOOK_TRIES = 3

Row = dict[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: what, how badly, about what, and what was seen."""

    kind: str
    level: str
    words: str = ""
    provider_id: int | None = None
    pool_id: int | None = None
    tier_id: int | None = None
    client_id: int | None = None

    @property
    def about(self) -> tuple[Any, ...]:
        return (self.kind, self.level, self.provider_id, self.pool_id, self.tier_id, self.client_id)


Open = frozenset[tuple[Any, ...]]  # `about` of what is open


def backlogs(rows: Rows, is_open: Open) -> list[Finding]:
    """Of each tier by its oldest job that could run, whichever model it waits for."""
    oldest: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row["oldest_s"], reverse=True):
        oldest.setdefault(row["tier_id"], row)
    found = []
    for tier_id, row in oldest.items():
        waited, target = span(row["oldest_s"]), span(row["target_s"])
        words = f"The oldest job that could run, in {row['model']}, has waited {waited}; the target is {target}."
        for level, times in (("critical", CRITICAL_BACKLOG), ("warning", 1)):
            finding = Finding("backlog", level, words, tier_id=tier_id)
            if row["oldest_s"] > row["target_s"] * times * _lower(finding, is_open):
                found.append(finding)
    return [finding for finding in found if not _is_overtaken(finding, found, is_open)]


def unserved(rows: Rows, is_open: Open) -> list[Finding]:
    """One for all where no worker lives; else one a model and tier that none serves."""
    left = [row for row in rows if not row["is_served"] and row["oldest_s"] > conf.alert_no_worker_s]
    if not left:
        return []
    if not left[0]["are_workers"]:
        oldest = span(max(row["oldest_s"] for row in left))
        return [Finding("no_worker", "critical", f"Jobs wait, the oldest for {oldest}, and no worker claims any.")]
    return [
        Finding(
            "no_worker",
            "critical",
            f"Jobs wait, the oldest for {span(row['oldest_s'])}; the workers that live serve other models or tiers.",
            pool_id=row["pool_id"],
            tier_id=row["tier_id"],
        )
        for row in left
    ]


def waiting(rows: Rows, is_open: Open) -> list[Finding]:
    return [*backlogs(rows, is_open), *unserved(rows, is_open)]


def blocked(rows: Rows, is_open: Open) -> list[Finding]:
    return [
        Finding(
            "blocked",
            "warning",
            f"{row['queued']:,} jobs wait; whenever somebody looked in {span(conf.alert_blocked_s)} the provider had "
            f"asked to wait, now for {span(row['left_s'])} more.",
            provider_id=row["provider_id"],
            pool_id=row["pool_id"],
        )
        for row in rows
    ]


def dead_letters(rows: Rows, is_open: Open) -> list[Finding]:
    """It opens where there are more than usual; a rise that lasts becomes usual, and is not over for that."""
    [row] = rows
    of_most = f" Most: {row['error_code'] or 'no code'} in {row['model']}, {row['jobs']:,}." if row["jobs"] else ""
    words = f"{row['recent']:,} in ten minutes; usual are {row['usual']:,.0f}.{of_most}"
    finding = Finding("dead_letters", "warning", words)
    bound = float(conf.alert_dead_letters)
    if finding.about in is_open:
        is_wrong = row["recent"] >= bound * STAYS
    else:
        is_wrong = row["recent"] >= max(bound, RISE * row["usual"])
    return [finding] if is_wrong else []


def webhooks(rows: Rows, is_open: Open) -> list[Finding]:
    found = []
    for row in rows:  # one, or none
        words = (
            f"{row['failed']:,} deliveries were given up within an hour, {row['failing']:,} were tried {WEBHOOK_TRIES} "
            f"times or more; to {row['receivers']:,} receivers, most to {row['receiver'] or 'no host'}: "
            f"{row['deliveries']:,}."
        )
        finding = Finding("webhooks", "warning", words)
        if row["failed"] + row["failing"] >= conf.alert_webhooks * _lower(finding, is_open):
            found.append(finding)
    return found


def claims_paused(rows: Rows, is_open: Open) -> list[Finding]:
    return [
        Finding("claims_paused", "warning", f"Paused by {row['by']} at {row['since']}. {row['reason']}".strip())
        for row in rows
    ]


def snapshots(rows: Rows, is_open: Open) -> list[Finding]:
    return [Finding("snapshot", "warning", " ".join(_holder(row) for row in rows))] if rows else []


def _holder(row: Row) -> str:
    of_user = f" of {row['user_name']}" if row["user_name"] else ""
    pid = f", pid {row['pid']}" if row["pid"] else ""
    state = f", {row['state']}" if row["state"] else ""
    began = (
        f"open for {span(row['open_s'])}"
        if row["open_s"] is not None
        else f"for {span(conf.alert_snapshot_s)} at least"
    )
    return f"{row['what'].capitalize()} {row['who']!r}{of_user}{pid}{state}: {began}."


def budgets(rows: Rows, is_open: Open) -> list[Finding]:
    found: list[Finding] = []
    for row in rows:
        used = float((row["spent"] + row["reserved"]) / row["budget"])
        words = (
            f"${row['spent']:,.2f} of ${row['budget']:,.2f} are spent this month; its waiting and running jobs are "
            f"expected to cost ${row['reserved']:,.2f}."
        )
        levels = [
            level
            for level, share in BUDGET_SHARES.items()
            if used >= share - (BUDGET_MARGIN if level in row["open"] else 0)
        ]
        if "critical" in levels and "warning" not in row["open"]:
            levels = ["critical"]
        found += [Finding("budget", level, words, client_id=row["client_id"]) for level in levels]
    return found


def span(seconds: float) -> str:
    """As people say it, rounded."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"


def _is_overtaken(finding: Finding, found: Sequence[Finding], is_open: Open) -> bool:
    """A warning that nobody was told of, where it is critical already."""
    critical = replace(finding, level="critical")
    return finding.level == "warning" and critical in found and finding.about not in is_open


def _lower(finding: Finding, is_open: Open) -> float:
    return STAYS if finding.about in is_open else 1.0
