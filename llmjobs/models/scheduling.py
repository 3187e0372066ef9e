"""Fair order: flows and lanes, and their hot state as turns.

Flow and Lane are identities: made once, by the fold, and never changed. What changes with every claim (virtual
times, running counts, cursors) is appended as a *turn*, newest first, and the turn before is deleted: an UPDATE
would leave a chain of dead versions under one key, which every reader walks for as long as any snapshot is open.

Only the holder of the turnstile writes here. Everybody else, submit and settle too, appends to the Inbox in its
own transaction, and the next claim folds that in. So nobody waits for a claim, and no claim for anybody.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.models.pools import Model, Turnstile
from llmjobs.models.tenants import Client, Tier

LEVELS = 10  # five priorities by two sizes, the most urgent first; the short ones are the even levels


class Flow(models.Model):
    """A client's share in a pool."""

    pool = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="flows", db_index=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="flows")

    class Meta:
        constraints = [models.UniqueConstraint(name="flow_of_pool_and_client", fields=["pool", "client"])]

    def __str__(self) -> str:
        return f"{self.client} in {self.pool}"


class Lane(models.Model):
    """A flow's jobs of one priority and size: FIFO, by `Job.lane_order`."""

    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, related_name="lanes", db_index=False)
    priority = models.PositiveSmallIntegerField()
    size = models.PositiveSmallIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="lane_of_flow", fields=["flow", "priority", "size"]),
            models.CheckConstraint(
                name="lane_priority_and_size_known",
                condition=Q(priority__in=[0, 1, 5, 8, 10], size__in=[0, 1]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.flow}, priority {self.priority}, size {self.size}"


class ShardTurn(models.Model):
    """How far the inbox of a shard has been folded. `bound_id` is `folded_to` as it was 2 to 4 seconds ago.

    `bound_xid` is the next transaction's number of that time: once all before it have ended, nothing comes behind the
    bound any more.
    """

    pk = models.CompositePrimaryKey("shard", "turn")
    shard = models.ForeignKey(Turnstile, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    turn = models.BigIntegerField()
    folded_to = models.BigIntegerField(default=0)
    bound_id = models.BigIntegerField(default=0)
    bound_xid = models.BigIntegerField(db_default=0)
    next_bound_id = models.BigIntegerField(default=0)
    next_bound_xid = models.BigIntegerField(db_default=0)
    next_bound_at = models.DateTimeField(db_default=Now())
    sweep_from = models.BigIntegerField(db_default=0, help_text="No row of the inbox has a smaller id.")
    aged_to = models.DateTimeField(db_default=Now(), help_text="Lanes due to age until then were looked at.")
    opened_to = models.FloatField(db_default=0, help_text="Flows due to open until then were looked at, Unix time.")


class TierTurn(models.Model):
    """A tier's virtual time in a pool, what it runs there, and by level the least virtual time of a ready lane."""

    pk = models.CompositePrimaryKey("pool", "tier", "turn")
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    turn = models.BigIntegerField()
    vt = models.FloatField(default=0)
    lifted = models.FloatField(default=0, help_text="Sum of the lifts on waking, for the identity of fairness.")
    served_vt = models.FloatField(default=0, help_text="Its virtual time when it was last served: a waking tier's.")
    flows_vt = models.FloatField(default=0, help_text="The like of the flow last served: a waking flow's.")
    running = models.IntegerField(default=0)
    mean_cost = models.FloatField(db_default=0, help_text="Of what was charged lately, in weighted tokens.")
    floors = ArrayField(models.FloatField(), size=LEVELS)
    floor_flows = ArrayField(
        models.BigIntegerField(),
        size=LEVELS,
        default=list,
        db_default=[],
        help_text="Of lanes at the very floor, the least flow: many wake at one virtual time.",
    )


class FlowTurn(models.Model):
    """A flow's virtual time and running count, and what its settled jobs taught of the next ones.

    `tier` is the one that its lanes are indexed under. A claim charges a job's estimate times `cost_ratio`.
    """

    pk = models.CompositePrimaryKey("flow", "turn")
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, db_constraint=False, related_name="turns", db_index=False)
    turn = models.BigIntegerField()
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    vt = models.FloatField(default=0)
    lifted = models.FloatField(default=0)
    running = models.IntegerField(default=0)
    mean_cost = models.FloatField(default=0, help_text="Of what was charged lately, in weighted tokens.")
    is_open = models.BooleanField(default=True, help_text="Neither paused nor at a limit of its client.")
    opens_at = models.FloatField(null=True, help_text="When its client's bucket has room again, Unix time.")
    weight = models.FloatField(db_default=1, help_text="The client's, as last folded: so is the limit.")
    max_running = models.IntegerField(null=True, help_text="The client's, or its tier's.")
    rpm = models.IntegerField(null=True, help_text="The client's, or its tier's.")
    tpm = models.IntegerField(null=True, help_text="The client's, or its tier's.")
    learned = models.FloatField(
        db_default=4, help_text="The weight of what is known, in jobs: the first guess counts as 4, and 64 is the most."
    )
    cost_ratio = models.FloatField(db_default=1, help_text="Mean of actual by estimated cost, of completed jobs.")
    output_tokens = models.FloatField(null=True, help_text="Mean of completed jobs.")
    tokens_ratio = models.FloatField(db_default=1, help_text="Mean of used by estimated tokens, of completed jobs.")
    error_var = models.FloatField(db_default=0, help_text="Mean square of used less reserved tokens.")

    class Meta:
        indexes = [models.Index(name="flowturn_opening", fields=["opens_at"], condition=Q(opens_at__isnull=False))]


class LaneTurn(models.Model):
    """A lane's cursor. `vt` repeats its flow's, so that one index gives the fair order of the ready lanes; what else
    repeats the lane's or the flow's saves the claim a look at them for every lane that it considers.
    """

    pk = models.CompositePrimaryKey("lane", "turn")
    lane = models.ForeignKey(Lane, on_delete=models.CASCADE, db_constraint=False, related_name="turns", db_index=False)
    turn = models.BigIntegerField()
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    priority = models.PositiveSmallIntegerField(db_default=5)
    size = models.PositiveSmallIntegerField(db_default=0)
    level = models.SmallIntegerField(help_text="Priority and size, the priority raised by the age of the head.")
    vt = models.FloatField(default=0)
    head_at = models.DateTimeField(null=True, help_text="Since when its head waits, or the lane was served.")
    ages_at = models.DateTimeField(null=True, help_text="When its level rises next; null: never.")
    head_order = models.BigIntegerField(default=0, help_text="No queued job of the lane has a smaller lane_order.")
    queued = models.IntegerField(default=0, help_text="Queued jobs, as far as the inbox has been folded.")
    has_heads = models.BooleanField(default=False, help_text="False: asleep, until something is queued.")
    is_ready = models.BooleanField(default=False, help_text="Awake, and its flow is open.")

    class Meta:
        indexes = [
            models.Index(
                name="laneturn_ready",
                fields=["pool", "tier", "level", "vt", "flow", "lane"],
                condition=Q(is_ready=True),
            ),
            models.Index(name="laneturn_aging", fields=["ages_at"], condition=Q(is_ready=True, ages_at__isnull=False)),
        ]


class Inbox(models.Model):
    """What happened since the last fold, one row a lane and transaction. Appended by all, deleted by the fold.

    A row without priority and size says that something about the client was edited: look at its flow again.
    """

    id = models.BigAutoField(primary_key=True)
    shard = models.ForeignKey(Turnstile, on_delete=models.CASCADE, db_constraint=False, db_default=1, db_index=False)
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    priority = models.PositiveSmallIntegerField(null=True)
    size = models.PositiveSmallIntegerField(null=True)
    queued = models.IntegerField(db_default=0, help_text="Change of the number of queued jobs.")
    head_order = models.BigIntegerField(null=True, help_text="The least lane_order that became queued.")
    head_at = models.DateTimeField(null=True, help_text="The earliest time since when one of these waits.")
    running = models.IntegerField(db_default=0, help_text="Change of the number of running jobs.")
    tier = models.ForeignKey(
        Tier,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        null=True,
        help_text="The tier that was charged.",
        db_index=False,
    )
    flow_vt = models.FloatField(db_default=0, help_text="Actual less charged cost, by the flow's weight at charge.")
    tier_vt = models.FloatField(db_default=0, help_text="The same, by the tier's weight at charge.")
    # Of completed attempts, for the flow to learn from.
    learned = models.IntegerField(db_default=0, help_text="Their number.")
    learned_estimate = models.FloatField(db_default=0, help_text="Their jobs' estimated cost, together.")
    learned_cost = models.FloatField(db_default=0, help_text="Their actual cost, together.")
    learned_output = models.FloatField(db_default=0, help_text="Their output tokens, together.")
    learned_tokens = models.FloatField(db_default=0, help_text="Their tokens, input and output, together.")
    learned_est_tokens = models.FloatField(db_default=0, help_text="Their estimated tokens, together.")
    learned_sq_error = models.FloatField(db_default=0, help_text="Squares of used less reserved tokens, together.")
    answered_at = models.FloatField(null=True, help_text="The latest claim among those that the provider answered.")
    # Of all attempts that ended.
    tokens = models.FloatField(db_default=0, help_text="Used less reserved tokens, for the buckets.")
    signal = models.JSONField(null=True, help_text="What the provider said beside the answers (signals.py).")

    class Meta:
        indexes = [models.Index(name="inbox_of_shard", fields=["shard", "id"])]
        verbose_name_plural = "inbox"
