"""The admin: what operators see, and the few things they do.

    pages.py, lists.py, filters.py, cells.py    what all pages share: permissions, bounded lists, filters, looks
    confirm.py, pausing.py                      actions: asked once, done in batches, written to the history
    tenants.py, keys.py, secrets.py, pools.py   tiers, clients, their keys and secrets, providers, models: edited here
    buckets.py, last_hour.py, limits_picture.py what blocks a provider or model, what was learned, and the last hour
    incidents.py, unblocking.py                 breakers that opened; try a provider again now
    jobs.py and job_*.py                        the list of jobs, the page of one, requeue and cancel
    ledger.py, scheduling.py, workers.py        what programs write: read only
    deliveries.py                               webhooks on their way; redeliver
    handler_calls.py                            the host's functions that were told of a job's end; call one again

Owns no state: an edit is a row of a table that people edit, everything else is a verb of `queue.py`. Prompts and
outputs need the permission `view_job_content`, requeue and cancel theirs; nothing is deleted here. No page has an
inline script or style.
"""

from llmjobs.admin import deliveries, handler_calls, incidents, jobs, keys, ledger, pools, scheduling, tenants, workers

__all__ = [
    "deliveries",
    "handler_calls",
    "incidents",
    "jobs",
    "keys",
    "ledger",
    "pools",
    "scheduling",
    "tenants",
    "workers",
]
