"""A configuration file's text becomes entries, or a list of all that is wrong with it."""

from decimal import Decimal
from pathlib import Path

import pytest

from llmjobs.configuration.reading import Unreadable, parsed
from llmjobs.configuration.tables import TABLES, expected, shown
from llmjobs.docs.fences import blocks


def problems(text: str) -> list[str]:
    return parsed(text.encode()).problems


def values(text: str) -> dict:
    """Of the only entry of a file in which nothing is wrong."""
    found = parsed(text.encode())
    assert found.problems == []
    [entry] = [entry for entries in found.entries.values() for entry in entries]
    return entry.values


def in_model(line: str) -> str:
    [problem] = problems(f'[[model]]\nname = "a"\n{line}\n')
    return problem


def test_an_entry_says_what_the_file_says_and_nothing_else():
    text = """
        [[model]]
        name = "gpt"
        provider = "openai"
        rpm = 500
        input_usd_per_mtok = 0.40
        output_usd_per_mtok = 2
        is_paused = true
    """
    assert values(text) == {
        "provider": "openai",
        "rpm": 500,
        "input_usd_per_mtok": Decimal("0.400000"),
        "output_usd_per_mtok": Decimal("2.000000"),
        "is_paused": True,
    }


@pytest.mark.parametrize("said", ['"high"', "1"])
def test_a_priority_is_a_word_or_its_number(said):
    assert values(f'[[tier]]\nname = "a"\nmax_priority = {said}') == {"max_priority": 1}


def test_an_empty_text_takes_a_value_away_where_a_field_may_be_empty():
    text = '[[model]]\nname = "a"\nrpm = ""\nfallback = ""\ninput_usd_per_mtok = ""\nupstream_name = ""'
    assert values(text) == {"rpm": None, "fallback": None, "input_usd_per_mtok": None, "upstream_name": ""}


def test_all_problems_are_listed_at_once_by_their_paths():
    text = """
        [[tiers]]
        name = "gold"

        [[model]]
        name = "a"

        [[model]]
        name = "b"
        rpm = "fast"
        tmp = 5
        window = "hour"

        [[model]]
        name = "a"

        [[client]]
        tier = "pro"
        monthly_budget_usd = 1.005
    """
    keys = ", ".join(TABLES["model"].keys)
    assert problems(text) == [
        "tiers: expected one of the tables tier, provider, model, client; did you mean tier?",
        'model[2].rpm: expected a whole number from 1 to 2,147,483,647, got "fast"',
        f"model[2].tmp: expected one of the keys {keys}; did you mean tpm?",
        'model[2].window: expected one of minute, second, got "hour"',
        "model[3].name: expected each name once, got 'a' as in model[1]",
        "client[1].name: expected a name, got none",
        "client[1].monthly_budget_usd: expected a number from 0 to 9,999,999,999.99, with at most 2 decimals, "
        "got 1.005",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rpm = 0", "rpm: expected a whole number from 1 to 2,147,483,647, got 0"),
        ("rpm = true", "rpm: expected a whole number from 1 to 2,147,483,647, got true"),
        ("rpm = 1.0", "rpm: expected a whole number from 1 to 2,147,483,647, got 1.0"),
        ("rpm = 2147483648", "rpm: expected a whole number from 1 to 2,147,483,647, got 2147483648"),
        ("max_running = -1", "max_running: expected a whole number from 0 to 2,147,483,647, got -1"),
        ("rpm = [1]", "rpm: expected a whole number from 1 to 2,147,483,647, got [1]"),
        ("is_paused = 1", "is_paused: expected true or false, got 1"),
        ("provider = 1", "provider: expected the name of a provider, got 1"),
        ("token_policy = []", "token_policy: expected one of portfolio, expected, max_tokens, got []"),
        (
            "input_usd_per_mtok = nan",
            "input_usd_per_mtok: expected a number from 0 to 999,999.999999, with at most 6 decimals, got NaN",
        ),
        (
            "input_usd_per_mtok = inf",
            "input_usd_per_mtok: expected a number from 0 to 999,999.999999, with at most 6 decimals, got Inf",
        ),
        (
            "input_usd_per_mtok = -0.1",
            "input_usd_per_mtok: expected a number from 0 to 999,999.999999, with at most 6 decimals",
        ),
        (
            "input_usd_per_mtok = 1e-7",
            "input_usd_per_mtok: expected a number from 0 to 999,999.999999, with at most 6 decimals",
        ),
        ("input_usd_per_mtok = 1e9999999999999999999999", "input_usd_per_mtok: expected a number from 0"),
        ("input_usd_per_mtok = 1e999999", "input_usd_per_mtok: expected a number from 0"),
        (r'upstream_name = "a\u0000"', r'upstream_name: expected a text, got "a\u0000"'),
        (r'provider = "a\u0000"', r'provider: expected the name of a provider, got "a\u0000"'),
        ("rpm = 2026-01-01", "rpm: expected a whole number from 1 to 2,147,483,647, got 2026-01-01"),
        (f'upstream_name = "{"x" * 200}"', "upstream_name: Ensure this value has at most 128 characters"),
    ],
)
def test_a_value_of_another_kind_is_told_with_what_was_expected(line, told):
    assert in_model(line).startswith(f"model[1].{told}")


@pytest.mark.parametrize("line", ["weight = 0", "weight = 1e9", "weight = 1e400", 'weight = ""', "weight = nan"])
def test_a_weight_has_bounds(line):
    [problem] = problems(f'[[tier]]\nname = "a"\n{line}')
    assert problem.startswith("tier[1].weight: expected a number from 0.001 to 1,000,000, got ")


@pytest.mark.parametrize("weight", [0.001, 1_000_000, 2.5])
def test_the_bounds_of_a_weight_are_within_them(weight):
    assert values(f'[[tier]]\nname = "a"\nweight = {weight}') == {"weight": weight}


def test_money_may_be_as_much_as_its_column_holds():
    said = '[[client]]\nname = "a"\ntier = "pro"\nmonthly_budget_usd = '
    assert values(f"{said}9999999999.99")["monthly_budget_usd"] == Decimal("9999999999.99")
    [problem] = problems(f"{said}10000000000")
    told = "expected a number from 0 to 9,999,999,999.99, with at most 2 decimals, got 10000000000"
    assert problem == f"client[1].monthly_budget_usd: {told}"


@pytest.mark.parametrize("said", ['"urgent"', "2", "true", '""', "1.0"])
def test_a_priority_that_is_none_is_refused(said):
    [problem] = problems(f'[[tier]]\nname = "a"\nmax_priority = {said}')
    assert problem.startswith("tier[1].max_priority: expected one of critical, high, normal, low, background, or its")


@pytest.mark.parametrize("name", ["two words", "", "-a", "x" * 200, "é"])
def test_a_name_that_is_none_is_refused(name):
    [problem] = problems(f'[[client]]\nname = "{name}"')
    assert problem.startswith("client[1].name: ")


@pytest.mark.parametrize(
    "line", ['api_key_env = "sk-s3cret"', 'api_key = "sk-s3cret"', 'base_url = "http://a:s3cret@b/"']
)
def test_a_key_put_there_by_mistake_is_not_said_again(line):
    [problem] = problems(f'[[provider]]\nname = "a"\n{line}')
    assert problem.startswith("provider[1].")
    assert "expected" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("text", ["model = 1", "[model]\nname = 'a'", "model = [1]"])
def test_a_table_that_is_no_array_of_tables_is_refused(text):
    assert problems(text) == ["model: expected tables that begin with [[model]], got something else"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[[tier]]\nname = \n", "line 2, column 8: invalid value"),
        (b"[[tier]]\r\nname = 'a'\r\nname = 'b'\r\n", "line 3, column 11: cannot overwrite a value"),
        (b"[[tier]]\nname = '\xff'\n", "line 2: expected UTF-8, got the byte 0xff"),
        (b"[[tier]]\nname = 'a", "line 2: "),
        (b"[[tier]]\nname = " + b"[" * 100_000, "expected TOML, got arrays or tables nested too deep"),
        (b"a = " + b"9" * 5_000, "line 1: "),
    ],
)
def test_what_is_no_toml_is_told_in_one_line_with_its_number(data, told):
    with pytest.raises(Unreadable) as refused:
        parsed(data)
    message = str(refused.value)
    assert message.lower().startswith(told.lower())
    assert "\n" not in message and len(message) < 300


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read():
    found = parsed(b'\xef\xbb\xbf[[tier]]\r\nname = "a"\r\nweight = 2\r\n')
    assert found.problems == []
    assert found.entries["tier"][0].values == {"weight": 2.0}


def test_an_unknown_key_keeps_to_its_line():
    [problem] = problems('[[tier]]\nname = "a"\n"we\\night" = 2')
    assert problem.startswith(r"tier[1].'we\night': expected one of the keys")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_key_is_a_field_and_says_what_it_takes(table):
    assert all(expected(table, key) for key in table.keys)
    assert len(set(table.keys)) == len(table.keys)


def test_the_documentation_tells_of_every_key_and_its_example_is_taken():
    page = Path("llmjobs/docs/pages/configuration.md").read_text(encoding="utf-8")
    [example] = [block for block in blocks(page) if block.kind == "toml"]
    found = parsed(example.code.encode())
    assert found.problems == []
    assert [len(entries) for entries in found.entries.values()] == [1, 1, 1, 1]
    _, _, table = page.partition("## Every key")
    assert [key for each in TABLES.values() for key in each.keys if f"`{key}`" not in table] == []


@pytest.mark.parametrize(
    ("table", "key", "value", "text"),
    [
        ("model", "input_usd_per_mtok", Decimal("0.400000"), "0.4"),
        ("model", "input_usd_per_mtok", Decimal("100.000000"), "100"),
        ("model", "rpm", None, "none"),
        ("model", "upstream_name", "", "none"),
        ("model", "is_paused", False, "false"),
        ("tier", "weight", 4.0, "4"),
        ("tier", "weight", 1_000_000.0, "1000000"),
        ("tier", "max_priority", 5, "normal"),
    ],
)
def test_values_are_shown_as_people_write_them(table, key, value, text):
    assert shown(TABLES[table], key, value) == text
