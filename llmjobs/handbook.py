"""What each kind of incident means, and what to do: for the admin's page of one, and for the mail that tells of it.

Owns these sentences alone. Invariant: every kind has an entry (a test asks).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """`means` says what happens to jobs, and what ends it; `steps` are what to do, the first thing first."""

    means: str
    steps: tuple[str, ...]


HANDBOOK = {
    "breaker": Entry(
        means="The provider refused its key, said that the quota is used up, or does not answer. Its jobs wait and "
        "burn no attempts; one of them is tried now and then, and the first answer lets all of them go on. "
        "Where none waits, the next that comes is tried.",
        steps=(
            "Read what the provider said, and look at its own status page and at your account there.",
            "Quota or key: pay, or put a valid key into the workers' environment and restart them.",
            "Then press “Try again now” on the provider's or the model's page; nothing is lost meanwhile.",
            "It may take long: give its models a fallback, or tell the clients.",
        ),
    ),
    "no_worker": Entry(
        means="Jobs wait, and no worker that lives and claims serves their model and tier. Nothing starts there until"
        " one does; nothing is lost.",
        steps=(
            "Start workers (manage.py runworker), or look why they end: their log, memory, the database's connections.",
            "A worker with --pools or --tiers serves these alone: is one there for what waits?",
            "A worker that drains claims nothing more: start another.",
        ),
    ),
    "backlog": Entry(
        means="A job of this tier that could run has waited longer than the tier's target. What was paused, and what "
        "waits for its own client's limits, does not count.",
        steps=(
            "Look at the tier's waiting jobs: one client, one model, or all?",
            "One model: its page shows its limits, what used them up, and answers with 429. Raise them, or set a "
            "fallback.",
            "All: are the workers' slots used up? Start more workers.",
            "One client with a large batch: that is what weights are for; give the tier a longer target if it is "
            "meant.",
        ),
    ),
    "blocked": Entry(
        means="The provider answers with 429, time and again, and has asked to wait whenever somebody looked. Jobs of"
        " the model wait, and keep their attempts.",
        steps=(
            "Compare the limits entered for the model with those of your account: somebody else may use the same key.",
            "Lower the model's requests or tokens a minute to what is yours; pacing then avoids the 429s.",
            "Need more: raise the limit at the provider, or set a fallback.",
        ),
    ),
    "claims_paused": Entry(
        means="An operator paused all claims: no worker starts anything. Jobs are accepted and wait; running ones end.",
        steps=(
            "Ask who paused it whether the reason still holds.",
            "Resume on the workers' page.",
        ),
    ),
    "dead_letters": Entry(
        means="Far more jobs than usual ended dead or failed. They wait for an operator; nothing tries them again.",
        steps=(
            "Open the dead letters: grouped by error, model and client, the largest group is mostly the cause.",
            "Read a sample of it: a provider's fault, a change of a prompt, a limit of the context?",
            "Once the cause is gone, requeue the group; gradually, if it is large. What nobody needs, discard.",
        ),
    ),
    "budget": Entry(
        means="The client has used up so much of its month's budget: what its attempts did cost, and what its waiting"
        " and running jobs are expected to. At 100 % its new jobs are refused (insufficient_quota); accepted "
        "ones still run.",
        steps=(
            "Tell the client, or raise its monthly budget on its page.",
            "Does it come sooner than usual? Its days and jobs show which model, and since when.",
        ),
    ),
    "webhooks": Entry(
        means="Ends of jobs can't be told to their receivers. A delivery is tried again for a day "
        "(LLMJOBS_WEBHOOK_RETRY_FOR_S), and then given up; clients that poll see their jobs as ever.",
        steps=(
            "Look at the deliveries: one receiver, or all? What did it answer?",
            "All: can the workers reach the outside, and resolve names?",
            "One: tell its client. When it is mended, redeliver what was given up.",
        ),
    ),
    "snapshot": Entry(
        means="Something holds an old snapshot of the database: rows that died since then can't be removed, for "
        "nobody's sake, and every query gets slower with time. It is mostly a forgotten transaction.",
        steps=(
            "A session: end what it does, or the session itself: select pg_terminate_backend(pid).",
            "A prepared transaction: commit prepared or rollback prepared, in its database.",
            "A replication slot: bring its standby back, or drop it: select pg_drop_replication_slot(name).",
            "A dump or report that takes so long: let it read from a standby. For the rest, set "
            "idle_in_transaction_session_timeout.",
        ),
    ),
}
