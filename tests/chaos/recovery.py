"""How long each fault was felt: from its moment until what it had hit was served again.

Reads the ledger, where every claim and every end has its time by the database's clock, which is this machine's.
"""

from collections.abc import Sequence

from tests.chaos.site import Fault
from tests.chaos.viewers import View
from tests.properties.ground import rows

# Of jobs that a worker held then: their next claim, or their end without one (settled from the log, cancelled, dead).
# An attempt that its worker itself ended after the fault was not hit by it.
AFTER_LOSS = """
select max(extract(epoch from coalesce(next.claimed_at, j.finished_at)) - %s) as seconds
from llmjobs_attempt a
join llmjobs_job j on j.id = a.job_id
left join lateral (
    select n.claimed_at from llmjobs_attempt n where n.job_id = a.job_id and n.number > a.number
    order by n.number limit 1
) as next on true
where a.worker_id = any(%s)
    and a.claimed_at < to_timestamp(%s) and a.ended_at > to_timestamp(%s)
    and a.outcome = 'lost'
"""

# Somebody claimed again, and somebody settled again: the later of the two.
AFTER_OUTAGE = """
select greatest(
    (select min(extract(epoch from claimed_at)) from llmjobs_attempt where claimed_at > to_timestamp(%s)),
    (select min(extract(epoch from ended_at)) from llmjobs_attempt where ended_at > to_timestamp(%s))
) - %s as seconds
"""


def slowest(faults: Sequence[Fault], views: Sequence[View]) -> tuple[float, str]:
    """Seconds, and of what fault. A viewer that was cut off counts, too, until its stream stood again."""
    found = [(0.0, "")]
    for fault in faults:
        at = fault.at
        if fault.workers is not None:
            [row] = rows(AFTER_LOSS, at, list(fault.workers), at, at)
        elif fault.kind.startswith("web"):
            continue  # its viewers tell
        else:
            [row] = rows(AFTER_OUTAGE, at, at, at)
        found.append((float(row["seconds"] or 0), fault.kind))
    found += [(back - lost, "viewer away") for view in views for lost, back in view.away]
    return max(found)
