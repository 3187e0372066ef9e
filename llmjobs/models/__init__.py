"""The tables, by who writes them.

tenants.py     tiers, clients, API keys: people edit them
pools.py       providers and models: people edit them; a model at a provider is a pool
jobs.py        jobs, what was asked, what came back, events: only the verbs of `queue.py` write them
attempts.py    the attempts made, and what they cost: these verbs too
scheduling.py  flows, lanes, turns, inbox: only the claim writes them, but for the inbox, to which all append
buckets.py     what is left of the limits: only the claim writes them, as turns
incidents.py   what operators must know: the fold opens and closes breakers, the watch all else
counts.py      how many jobs there are, and what was spent: triggers append what changed, one worker at a time counts it
dead_letters.py what waits for an operator, by error: a trigger on Job keeps it
outbox.py      webhooks and handlers to be told of a job's end: a trigger writes them, workers work them off
tallies.py     what happened, by time: triggers append, one worker at a time folds it in
retention.py   how far retention has come
sharing.py     links that show a job to whoever has them: `sharing.py` writes them
workers.py     the worker processes, by their own heartbeats
pauses.py      when all claims were paused: `pauses.py` writes it, every claim reads it
operations.py  what operators do to many jobs: `operations.py` writes it

Here live the columns, the CHECKs and reading; no method changes a job.
"""

from llmjobs.models.attempts import Attempt
from llmjobs.models.buckets import BlockedBy, BucketKind, BucketTurn, PoolSample
from llmjobs.models.counts import JobCount, JobCountChange, JobCountTurn, Spending
from llmjobs.models.dead_letters import DeadLetter
from llmjobs.models.incidents import Incident, Watch
from llmjobs.models.jobs import Job, JobEvent, JobRequest, JobResult
from llmjobs.models.operations import Operation, OperationItem, OperationState
from llmjobs.models.outbox import CallState, DeliveryState, HandlerCall, WebhookDelivery
from llmjobs.models.pauses import ClaimsPause
from llmjobs.models.pools import Model, Provider, TokenPolicy, Turnstile, Window
from llmjobs.models.retention import Retention
from llmjobs.models.scheduling import Flow, FlowTurn, Inbox, Lane, LaneTurn, ShardTurn, TierTurn
from llmjobs.models.sharing import SharedLink
from llmjobs.models.tallies import ClientDay, Tally, TallyChange, TallyMark, TallyTime, TierSample
from llmjobs.models.tenants import ApiKey, Client, Tier
from llmjobs.models.workers import Worker

__all__ = [
    "ApiKey",
    "Attempt",
    "BlockedBy",
    "BucketKind",
    "BucketTurn",
    "CallState",
    "ClaimsPause",
    "Client",
    "ClientDay",
    "DeadLetter",
    "DeliveryState",
    "Flow",
    "FlowTurn",
    "HandlerCall",
    "Inbox",
    "Incident",
    "Job",
    "JobCount",
    "JobCountChange",
    "JobCountTurn",
    "JobEvent",
    "JobRequest",
    "JobResult",
    "Lane",
    "LaneTurn",
    "Model",
    "Operation",
    "OperationItem",
    "OperationState",
    "PoolSample",
    "Provider",
    "Retention",
    "ShardTurn",
    "SharedLink",
    "Spending",
    "Tally",
    "TallyChange",
    "TallyMark",
    "TallyTime",
    "Tier",
    "TierSample",
    "TierTurn",
    "TokenPolicy",
    "Turnstile",
    "Watch",
    "WebhookDelivery",
    "Window",
    "Worker",
]
