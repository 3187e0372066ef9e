"""Flows and lanes, with their newest turn: virtual time, running, queued, ready. Read only; the claim alone writes
them.

Turns and the inbox have no pages of their own (their keys are composite, and they live for milliseconds): a flow's
page shows its newest turn, its tier's, its lanes and what is still in the inbox for it.
"""

import math
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Count, DateTimeField, ExpressionWrapper, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import JSONObject, Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs.admin.cells import NOTHING, badge, count, duration, link_to
from llmjobs.admin.job_filters import ClientFilter, ModelFilter, PriorityFilter, SizeFilter
from llmjobs.admin.pages import ViewOnlyPage
from llmjobs.models import Flow, FlowTurn, Inbox, Lane, LaneTurn, ShardTurn, Tier, TierTurn, Turnstile
from llmjobs.states import Priority, Size

FLOW_TURN = (
    "vt",
    "lifted",
    "running",
    "mean_cost",
    "is_open",
    "tier_id",
    "turn",
    "learned",
    "cost_ratio",
    "output_tokens",
    "tokens_ratio",
    "error_var",
    "opens_at",
)
LANE_TURN = ("vt", "head_order", "queued", "has_heads", "is_ready", "tier_id", "turn", "level")


def newest(turns: QuerySet[Any], columns: tuple[str, ...]) -> Subquery:
    """The newest turn of the outer row as one JSON object: one probe of the key a row, whatever is asked for."""
    return Subquery(turns.order_by("-turn").values(now=JSONObject(**{name: F(name) for name in columns}))[:1])


def turn(row: Any, name: str) -> Any:
    """None where there is no turn: the row was made, and nothing was folded for it yet."""
    return (row.now or {}).get(name)


@admin.display(description="virtual time")
def virtual_time(row: Any) -> str:
    vt = turn(row, "vt")
    return NOTHING if vt is None else f"{vt:,.1f}"


@admin.display(description="running")
def running(row: Any) -> str:
    return count(turn(row, "running"))


@admin.display(description="open")
def is_open(row: Any) -> SafeString | str:
    """Neither paused nor at a limit of its client."""
    value = turn(row, "is_open")
    return NOTHING if value is None else badge("open" if value else "blocked")


@admin.display(description="mean cost")
def mean_cost(row: Any) -> str:
    value = turn(row, "mean_cost")
    return NOTHING if value is None else f"{value:,.1f} weighted tokens"


@admin.display(description="learned")
def learned(row: Any) -> str:
    """What its completed jobs taught about the next ones."""
    tokens = turn(row, "output_tokens")
    if tokens is None:
        return NOTHING
    return f"{tokens:,.0f} output tokens a job, {turn(row, 'cost_ratio'):.2f} times the estimated cost"


@admin.display(description="tokens")
def tokens(row: Any) -> str:
    """What its completed jobs used beside what was estimated and reserved: the next reservations follow it."""
    ratio, error_var = turn(row, "tokens_ratio"), turn(row, "error_var")
    if ratio is None or error_var is None:
        return NOTHING
    return f"{ratio:.2f} times the estimate, deviation {math.sqrt(error_var):,.0f}"


@admin.display(description="opens")
def opens(row: Any) -> str:
    """When its client's requests or tokens a minute have room again."""
    opens_at_s = turn(row, "opens_at")
    if opens_at_s is None or opens_at_s <= row.read_at.timestamp():
        return NOTHING
    return f"in {duration(timedelta(seconds=opens_at_s - row.read_at.timestamp()))}"


@admin.register(Flow)
class FlowPage(ViewOnlyPage):
    list_display = ("id", "pool", "client", virtual_time, running, is_open, opens, mean_cost, learned, tokens)
    list_filter = (ModelFilter, ClientFilter)
    change_form_template = "admin/llmjobs/flow/change_form.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Flow]:
        flows = super().get_queryset(request).select_related("pool", "client__tier")
        turns = FlowTurn.objects.filter(flow=OuterRef("pk"))
        read_at = ExpressionWrapper(Now(), output_field=DateTimeField())
        return flows.annotate(now=newest(turns, FLOW_TURN), read_at=read_at)

    def details(self, request: HttpRequest, obj: Flow) -> dict[str, Any]:
        lanes = with_turn(Lane.objects.filter(flow=obj)).order_by("priority", "size")  # ten at most
        tier = Tier.objects.filter(pk=turn(obj, "tier_id")).first() or obj.client.tier
        inbox = Inbox.objects.filter(pool=obj.pool_id, client=obj.client_id)
        return {
            "lanes": [_cells(lane) for lane in lanes],
            "tier": tier,
            "tier_turn": TierTurn.objects.filter(pool=obj.pool_id, tier=tier).order_by("-turn").first(),
            "inbox": inbox.aggregate(
                rows=Count("pk"), queued=Sum("queued", default=0), running=Sum("running", default=0)
            ),
        }

    def get_fields(self, request: HttpRequest, obj: Flow | None = None) -> Any:
        return ("pool", "client", virtual_time, running, is_open, opens, mean_cost, learned, tokens)

    def links(self, obj: Flow) -> list[tuple[str, str]]:
        jobs = urlencode({"client": obj.client.name, "served_by": obj.pool.name})
        return [(f"{reverse('admin:llmjobs_job_changelist')}?{jobs}", "Jobs")]


def _cells(lane: Lane) -> dict[str, str]:
    return {
        "priority": link_to(lane, priority(lane)),
        "size": size(lane),
        "queued": queued(lane),
        "state": lane_state(lane),
        "virtual_time": virtual_time(lane),
    }


def with_turn(lanes: QuerySet[Lane]) -> QuerySet[Lane]:
    return lanes.annotate(now=newest(LaneTurn.objects.filter(lane=OuterRef("pk")), LANE_TURN))


@admin.display(description="priority")
def priority(lane: Lane) -> str:
    """Its own, and the one that it was raised to because its head has waited long."""
    own, level = Priority(lane.priority).word, turn(lane, "level")
    risen = own if level is None or not turn(lane, "has_heads") else list(Priority)[level // 2].word
    return own if risen == own else f"{own}, raised to {risen}"


@admin.display(description="size")
def size(lane: Lane) -> str:
    return Size(lane.size).word


@admin.display(description="queued")
def queued(lane: Lane) -> str:
    return count(turn(lane, "queued"))


@admin.display(description="state")
def lane_state(lane: Lane) -> SafeString:
    """ready: the next claim may take its head. blocked: its flow is. asleep: until something is queued."""
    if turn(lane, "is_ready"):
        return badge("ready")
    return badge("blocked" if turn(lane, "has_heads") else "asleep")


@admin.display(description="flow")
def flow(lane: Lane) -> SafeString:
    return link_to(lane.flow)


@admin.display(description="head")
def head(lane: Lane) -> str:
    """No queued job of the lane has a smaller place (`lane_order`)."""
    return count(turn(lane, "head_order"))


class LaneModelFilter(ModelFilter):
    column = "flow__pool_id"


class LaneClientFilter(ClientFilter):
    column = "flow__client_id"


@admin.register(Lane)
class LanePage(ViewOnlyPage):
    list_display = ("id", flow, priority, size, queued, lane_state, virtual_time)
    list_filter = (LaneModelFilter, LaneClientFilter, PriorityFilter, SizeFilter)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lane]:
        return with_turn(super().get_queryset(request).select_related("flow__pool", "flow__client"))

    def get_fields(self, request: HttpRequest, obj: Lane | None = None) -> Any:
        return (flow, priority, size, queued, lane_state, virtual_time, head)

    def links(self, obj: Lane) -> list[tuple[str, str]]:
        jobs = urlencode(
            {
                "client": obj.flow.client.name, "served_by": obj.flow.pool.name, "status": "queued",
                "priority": Priority(obj.priority).word, "size": Size(obj.size).word,
            }
        )  # fmt: skip
        return [(f"{reverse('admin:llmjobs_job_changelist')}?{jobs}", "Its queued jobs")]


@admin.register(Turnstile)
class TurnstilePage(ViewOnlyPage):
    """The shards: how far the inbox of each has been folded."""

    list_display = fields = ("id", "folded_to", "waiting")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turnstile]:
        folded = newest(ShardTurn.objects.filter(shard=OuterRef("pk")), ("folded_to",))
        waiting = Inbox.objects.filter(shard=OuterRef("pk")).order_by().values("shard").annotate(rows=Count("pk"))
        return super().get_queryset(request).annotate(now=folded, inbox_rows=Subquery(waiting.values("rows")))

    @admin.display(description="folded to")
    def folded_to(self, shard: Turnstile) -> str:
        return count(turn(shard, "folded_to"))

    @admin.display(description="rows in the inbox")
    def waiting(self, shard: Turnstile) -> str:
        return count(shard.inbox_rows or 0)  # type: ignore[attr-defined]
