"""manage.py configure."""

import re
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from llmjobs.models import ApiKey, Client, Flow, Inbox, LaneTurn, Model, Provider, Tier
from tests.concurrency.threads import together
from tests.factories import make_client, make_job, make_key, make_model, make_provider, make_tier
from tests.hands import submit

pytestmark = pytest.mark.django_db

WHOLE = """
[[tier]]
name = "gold"
weight = 8
max_priority = "high"
aging_s = 60
max_queued = 50
max_queued_tokens = 10000
max_running = 5
rpm = 100
tpm = 5000

[[provider]]
name = "eu"
base_url = "https://eu.example.org/v1"
api_key_env = "EU_API_KEY"
any_model = true
default_rpm = 10
default_tpm = 1000
rpm = 1000
tpm = 100000
max_running = 40
background = true
is_paused = true

[[model]]
name = "large"
provider = "eu"
upstream_name = "large-2026"
rpm = 500
tpm = 200000
max_running = 100
window = "second"
token_policy = "max_tokens"
input_usd_per_mtok = 0.40
output_usd_per_mtok = 1.6
context_window = 128000
fallback = "small"
is_paused = true

[[model]]
name = "small"
provider = "eu"

[[client]]
name = "acme"
tier = "gold"
weight = 2
is_paused = true
monthly_budget_usd = 200
max_queued = 7
max_queued_tokens = 700
max_running = 3
rpm = 20
tpm = 2000
"""


@pytest.fixture
def configure(tmp_path: Path):
    def run(text: str, *options: str) -> str:
        file = tmp_path / "llmjobs.toml"
        file.write_text(text, encoding="utf-8")
        out = StringIO()
        call_command("configure", str(file), *options, stdout=out, no_color=True)
        return out.getvalue()

    return run


@pytest.fixture
def refused(configure):
    """The lines that say why; nothing was changed."""

    def run(text: str, *options: str) -> list[str]:
        before = state()
        with pytest.raises(CommandError) as error:
            configure(text, *options)
        assert state() == before
        assert error.value.returncode == 2
        first, *problems = str(error.value).splitlines()
        assert first.endswith("nothing was changed.")
        return problems

    return run


@pytest.fixture
def would_change(configure, tmp_path):
    """What --check says that would change; nothing does."""

    def run(text: str, *options: str) -> str:
        before, out = state(), StringIO()
        file = tmp_path / "llmjobs.toml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit) as left:
            call_command("configure", str(file), "--check", *options, stdout=out, no_color=True)
        assert left.value.code == 1
        assert state() == before
        return out.getvalue()

    return run


def state() -> list:
    return [list(model.objects.order_by("pk").values()) for model in (Tier, Provider, Model, Client)]


def test_a_key_with_another_word_than_its_column_can_be_changed(configure):
    configure(WHOLE)
    assert "background" in configure(WHOLE.replace("background = true", "background = false"))
    assert not Provider.objects.get().has_background


def test_every_key_reaches_its_column(configure):
    configure(WHOLE)

    tier = Tier.objects.get(name="gold")
    assert (tier.weight, tier.max_priority, tier.aging_s) == (8, 1, 60)
    assert (tier.max_queued, tier.max_queued_tokens, tier.max_running, tier.rpm, tier.tpm) == (
        50,
        10_000,
        5,
        100,
        5_000,
    )
    provider = Provider.objects.get()
    assert (provider.base_url, provider.api_key_env) == ("https://eu.example.org/v1", "EU_API_KEY")
    assert (provider.any_model, provider.default_rpm, provider.default_tpm) == (True, 10, 1_000)
    assert (provider.rpm, provider.tpm, provider.max_running, provider.is_paused) == (1_000, 100_000, 40, True)
    assert provider.has_background
    model = Model.objects.get(name="large")
    assert (model.provider, model.upstream_name, model.fallback.name) == (provider, "large-2026", "small")
    assert (model.rpm, model.tpm, model.max_running, model.context_window) == (500, 200_000, 100, 128_000)
    assert (model.window, model.token_policy, model.is_paused) == ("second", "max_tokens", True)
    assert (model.input_usd_per_mtok, model.output_usd_per_mtok) == (Decimal("0.4"), Decimal("1.6"))
    client = Client.objects.get()
    assert (client.tier, client.weight, client.is_paused, client.monthly_budget_usd) == (tier, 2, True, 200)
    limits = (client.max_queued, client.max_queued_tokens, client.max_running, client.rpm, client.tpm)
    assert limits == (7, 700, 3, 20, 2_000)


def test_the_contracts_example_is_taken(configure):
    text = """
        [[tier]]
        name = "pro"
        weight = 4
        max_priority = "high"
        max_queued = 1000          # per client; also max_queued_tokens, max_running, rpm, tpm

        [[provider]]
        name = "openai"
        base_url = "https://api.openai.com/v1"
        api_key_env = "OPENAI_API_KEY"
        any_model = false

        [[model]]
        name = "gpt-4.1-mini"
        provider = "openai"
        rpm = 500
        tpm = 200000
        max_running = 100
        input_usd_per_mtok = 0.40
        output_usd_per_mtok = 1.60
        fallback = "gpt-4.1-mini-eu"

        [[model]]
        name = "gpt-4.1-mini-eu"
        provider = "openai"

        [[client]]
        name = "acme"
        tier = "pro"
        weight = 1
        monthly_budget_usd = 200
    """
    configure(text)
    assert Model.objects.get(name="gpt-4.1-mini").fallback.name == "gpt-4.1-mini-eu"


def test_a_second_time_nothing_changes(configure):
    configure(WHOLE)
    before = state()
    assert configure(WHOLE) == "Nothing changes.\n"
    assert configure(WHOLE, "--check") == "Nothing would change.\n"
    assert state() == before


def test_what_changes_is_shown_as_old_and_new(configure):
    make_client("acme", tier="pro")
    make_model("small", provider=make_provider("eu"), rpm=500, input_usd_per_mtok=Decimal("0.4"))
    text = """
        [[tier]]
        name = "gold"
        weight = 2.5

        [[model]]
        name = "small"
        rpm = 600
        tpm = ""
        input_usd_per_mtok = 0.4
        fallback = "large"

        [[model]]
        name = "large"
        provider = "eu"

        [[client]]
        name = "acme"
        tier = "gold"
    """
    assert configure(text).splitlines() == [
        "create tier gold",
        "  weight: 2.5",
        "change model small",
        "  rpm: 500 -> 600",
        "  tpm: 2000000000 -> none",
        "  fallback: none -> large",
        "create model large",
        "  provider: eu",
        "change client acme",
        "  tier: pro -> gold",
        "2 created, 2 changed.",
    ]


def test_keys_that_are_not_in_the_file_stay_as_they_are(configure):
    make_client("acme", tier="pro", rpm=7, is_paused=True)
    configure('[[client]]\nname = "acme"\nweight = 3')
    client = Client.objects.get()
    assert (client.weight, client.rpm, client.is_paused, client.tier.name) == (3, 7, True, "pro")


def test_a_look_changes_nothing_and_tells_by_its_exit(would_change, configure):
    assert would_change(WHOLE).endswith("Would be 5 created.\n")
    assert not Provider.objects.exists()
    configure(WHOLE)
    make_client("left", tier="gold")
    assert would_change(WHOLE, "--prune").splitlines()[0] == "remove client left"


def test_all_problems_are_told_at_once_and_nothing_is_changed(refused):
    make_tier("gold")
    text = """
        [[tier]]
        name = "silver"
        weight = "heavy"

        [[model]]
        name = "large"
        provider = "open-ai"
        fallback = "larg"

        [[provider]]
        name = "openai"

        [[client]]
        name = "acme"
        tier = "golden"

        [[client]]
        name = "other"
    """
    told = refused(text)
    assert told[0] == 'tier[1].weight: expected a number from 0.001 to 1,000,000, got "heavy"'
    assert told[1] == "provider[1].base_url: expected one, since provider openai is new, got none"
    assert told[2] == "model[1].provider: expected one of the providers openai, got 'open-ai'; did you mean openai?"
    assert told[3] == "model[1].fallback: expected one of the models large, got 'larg'; did you mean large?"
    assert re.fullmatch(
        r"client\[1\]\.tier: expected one of the tiers .*gold, .*silver, got 'golden'; did you mean gold\?", told[4]
    )
    assert told[5:] == ["client[2].tier: expected one, since client other is new, got none"]


def test_a_reference_may_be_to_what_only_the_database_has(configure):
    make_model("there", provider=make_provider("eu"))
    configure('[[model]]\nname = "new"\nprovider = "eu"\nfallback = "there"')
    assert Model.objects.get(name="new").fallback.name == "there"


@pytest.mark.parametrize("through", ["the file", "the database"])
def test_fallbacks_that_lead_back_are_refused(refused, through):
    provider = make_provider("eu")
    last = make_model("c", provider=provider)
    make_model("b", provider=provider, fallback=last)
    text = '[[model]]\nname = "a"\nprovider = "eu"\nfallback = "b"\n[[model]]\nname = "c"\nfallback = "a"\n'
    if through == "the file":
        Model.objects.update(fallback=None)
        text += '[[model]]\nname = "b"\nfallback = "c"\n'
    told = refused(text)
    assert told[:2] == [
        "model[1].fallback: expected an end to the fallbacks, got a → b → c → a",
        "model[2].fallback: expected an end to the fallbacks, got c → a → b → c",
    ]


def test_a_model_is_not_its_own_fallback(refused):
    make_model("a")
    assert refused('[[model]]\nname = "a"\nfallback = "a"') == [
        "model[1].fallback: expected an end to the fallbacks, got a → a"
    ]


def test_a_fallback_may_be_turned_round(configure):
    provider = make_provider()
    second = make_model("second", provider=provider)
    make_model("first", provider=provider, fallback=second)
    configure('[[model]]\nname = "second"\nfallback = "first"\n[[model]]\nname = "first"\nfallback = ""')
    assert Model.objects.get(name="second").fallback.name == "first"
    assert Model.objects.get(name="first").fallback is None


@pytest.mark.django_db(transaction=True)
def test_an_edit_reaches_the_backlog_at_the_next_claim(configure, client, pool, hand):
    submit(client, pool, 3)
    assert len(hand.claim(pool)) == 1
    configure(f'[[client]]\nname = "{client.name}"\nis_paused = true')
    assert Inbox.objects.filter(client=client, priority=None).exists(), "the trigger told the claim"
    assert hand.claim(pool) == []
    configure(f'[[client]]\nname = "{client.name}"\nis_paused = false')
    assert len(hand.claim(pool, 2)) == 2


def test_what_the_file_does_not_name_stays_without_prune(configure):
    make_client("left")
    configure('[[tier]]\nname = "gold"')
    assert Client.objects.filter(name="left").exists()


def test_prune_removes_what_nothing_refers_to_and_lists_what_it_leaves(configure):
    Tier.objects.all().delete()
    provider = make_provider("eu")
    target = make_model("used-as-fallback", provider=provider)
    make_model("named", provider=provider, fallback=target)
    make_model("unused", provider=make_provider("us"), fallback=make_model("chained", provider=provider))
    busy = make_client("busy", tier="gold")
    make_job(client=busy, model=make_model("busy", provider=provider))
    make_key(make_client("idle", tier="silver"))
    lines = configure('[[model]]\nname = "named"', "--prune").splitlines()
    assert lines == [
        "remove client idle (with its 1 API key)",
        "keep client busy (jobs refer to it)",
        "remove model unused",
        "remove model chained",
        "keep model busy (jobs refer to it)",
        "keep model used-as-fallback (models refer to it)",
        "remove provider us",
        "keep provider eu (models refer to it)",
        "remove tier silver",
        "keep tier gold (clients and jobs refer to it)",
        "5 removed.",
    ]
    assert set(Model.objects.values_list("name", flat=True)) == {"named", "busy", "used-as-fallback"}
    assert not ApiKey.objects.exists()
    assert configure('[[model]]\nname = "named"', "--prune").endswith("Nothing changes.\n")


def test_prune_keeps_who_has_attempts_alone(configure):
    client, pool = make_client("spent"), make_model("spent")
    make_job("completed", client=client, model=pool)
    with connection.cursor() as cursor:
        cursor.execute("delete from llmjobs_job")  # Django would take the ledger with it
    lines = configure('[[tier]]\nname = "gold"', "--prune").splitlines()
    assert "keep client spent (attempts refer to it)" in lines
    assert "keep model spent (attempts refer to it)" in lines


@pytest.mark.django_db(transaction=True)
def test_prune_takes_what_claims_knew_of_who_goes(configure, client, pool, hand):
    submit(client, pool)
    hand.settle(*hand.claim(pool))
    hand.fold()
    with connection.cursor() as cursor:
        cursor.execute("delete from llmjobs_job; delete from llmjobs_attempt")
    lines = configure("", "--prune").splitlines()
    assert {f"remove client {client.name}", f"remove model {pool.name}"} <= set(lines)
    assert not Flow.objects.exists() and not LaneTurn.objects.exists()


def test_no_key_is_said_again(refused):
    keys = ('base_url = "https://u:s3cret@x.org/v1"', 'api_key_env = "sk-s3cret"', 'api_key = "sk-s3cret"')
    text = "\n".join(['[[provider]]\nname = "a"', *keys])
    told = "\n".join(refused(text))
    assert "s3cret" not in told
    assert "did you mean api_key_env?" in told


def test_a_file_that_is_none_is_told_in_one_line(tmp_path):
    (tmp_path / "broken.toml").write_bytes(b"[[tier]]\r\nname = \r\n")
    for name, told in (("broken.toml", "line 2"), ("missing.toml", "No such file"), (".", "directory")):
        with pytest.raises(CommandError, match=told) as error:
            call_command("configure", str(tmp_path / name))
        assert "\n" not in str(error.value)
        assert error.value.returncode == 2


def test_an_empty_file_changes_nothing(configure):
    assert configure("") == "Nothing changes.\n"


@pytest.mark.django_db(transaction=True)
def test_two_at_a_time_make_each_thing_once(configure, tmp_path):
    file = tmp_path / "llmjobs.toml"
    file.write_text(WHOLE, encoding="utf-8")
    said: list[str] = []

    def run() -> None:
        out = StringIO()
        call_command("configure", str(file), stdout=out, no_color=True)
        said.append(out.getvalue().splitlines()[-1])

    together([run] * 4)
    assert sorted(said) == ["5 created.", *["Nothing changes."] * 3]
