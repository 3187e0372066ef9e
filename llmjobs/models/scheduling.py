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
    """How far the inbox of a shard has been folded. `bound_id` is `folded_to` as it was 2 to 4 seconds ago."""

    pk = models.CompositePrimaryKey("shard", "turn")
    shard = models.ForeignKey(Turnstile, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    turn = models.BigIntegerField()
    folded_to = models.BigIntegerField(default=0)
    bound_id = models.BigIntegerField(default=0)
    next_bound_id = models.BigIntegerField(default=0)
    next_bound_at = models.DateTimeField(db_default=Now())


class TierTurn(models.Model):
    """A tier's virtual time in a pool, what it runs there, and by level the least virtual time of a ready lane."""

    pk = models.CompositePrimaryKey("pool", "tier", "turn")
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    turn = models.BigIntegerField()
    vt = models.FloatField(default=0)
    lifted = models.FloatField(default=0, help_text="Sum of the lifts on waking, for the identity of fairness.")
    served_vt = models.FloatField(default=0, help_text="Its virtual time when it was last served: a waking tier's.")
    flows_vt = models.FloatField(default=0, help_text="The like of the flow last served: a waking flow's.")
    running = models.IntegerField(default=0)
    floors = ArrayField(models.FloatField(), size=LEVELS)


class FlowTurn(models.Model):
    """A flow's virtual time and running count. `tier` is the one that its lanes are indexed under."""

    pk = models.CompositePrimaryKey("flow", "turn")
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, db_constraint=False, related_name="turns", db_index=False)
    turn = models.BigIntegerField()
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    vt = models.FloatField(default=0)
    lifted = models.FloatField(default=0)
    running = models.IntegerField(default=0)
    mean_cost = models.FloatField(default=0, help_text="Of what was charged lately, in weighted tokens.")
    is_open = models.BooleanField(default=True, help_text="Neither paused nor at its limit of running jobs.")


class LaneTurn(models.Model):
    """A lane's cursor. `vt` repeats its flow's, so that one index gives the fair order of the ready lanes."""

    pk = models.CompositePrimaryKey("lane", "turn")
    lane = models.ForeignKey(Lane, on_delete=models.CASCADE, db_constraint=False, related_name="turns", db_index=False)
    turn = models.BigIntegerField()
    flow = models.ForeignKey(Flow, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    level = models.SmallIntegerField()
    vt = models.FloatField(default=0)
    head_order = models.BigIntegerField(default=0, help_text="No queued job of the lane has a smaller lane_order.")
    queued = models.IntegerField(default=0, help_text="Queued jobs, as far as the inbox has been folded.")
    has_heads = models.BooleanField(default=False, help_text="False: asleep, until something is queued.")
    is_ready = models.BooleanField(default=False, help_text="Awake, and its flow is open.")

    class Meta:
        indexes = [
            models.Index(
                name="laneturn_ready",
                fields=["pool", "tier", "level", "vt", "lane"],
                condition=Q(is_ready=True),
            )
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
    running = models.IntegerField(db_default=0, help_text="Change of the number of running jobs.")
    tier = models.ForeignKey(
        Tier,
        on_delete=models.CASCADE,
        db_constraint=False,
        null=True,
        help_text="The tier that was charged.",
        db_index=False,
    )
    flow_vt = models.FloatField(db_default=0, help_text="Actual less charged cost, by the flow's weight at charge.")
    tier_vt = models.FloatField(db_default=0, help_text="The same, by the tier's weight at charge.")

    class Meta:
        indexes = [models.Index(name="inbox_of_shard", fields=["shard", "id"])]
        verbose_name_plural = "inbox"
