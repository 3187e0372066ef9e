"""The admin: what operators see, and the few things they do.

    pages.py, lists.py, filters.py, cells.py    what all pages share: permissions, bounded lists, filters, looks
    confirm.py, pausing.py                      actions: asked once, done in batches, written to the history
    tenants.py, keys.py, secrets.py, pools.py   tiers, clients, their keys and secrets, providers, models: edited here
    key_rotation.py                             a new key beside the old one, for some hours
    previews.py, shares.py                      before a weight or a tier is saved: how shares of what waits would move
    usage.py, days_picture.py, bars.py          what they run and wait for now, what they used by day, of which budget
    buckets.py, last_hour.py, limits_picture.py what blocks a provider or model, what was learned, and the last hour
    incidents.py, unblocking.py                 breakers that opened; try a provider again now
    jobs.py and job_*.py                        the list of jobs, the page of one, what can be done to many
    dead_letters.py, dead_letter_groups.py      what waits for an operator, by error, model and client
    operations.py, operation_forms.py           what was and is being done to many: how far, stop, undo
    exports.py                                  jobs as a file, written while it is sent
    ledger.py, scheduling.py                    what programs write: read only
    workers.py, draining.py, claims.py          the workers; drain one, pause and resume all claims
    deliveries.py                               webhooks on their way; redeliver
    handler_calls.py                            the host's functions that were told of a job's end; call one again

Owns no state: an edit is a row of a table that people edit, everything else is a verb of `queue.py`. Prompts and
outputs need the permission `view_job_content`, requeue and cancel theirs; nothing is deleted here. No page has an
inline script or style.
"""

from llmjobs.admin import (
    claims,
    dead_letters,
    deliveries,
    handler_calls,
    incidents,
    jobs,
    keys,
    ledger,
    operations,
    pools,
    scheduling,
    tenants,
    workers,
)

__all__ = [
    "claims",
    "dead_letters",
    "deliveries",
    "handler_calls",
    "incidents",
    "jobs",
    "keys",
    "ledger",
    "operations",
    "pools",
    "scheduling",
    "tenants",
    "workers",
]
