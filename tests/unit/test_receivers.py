"""Who is next to be sent a webhook: clients in turn, receivers in turn, none above its bound."""

from llmjobs.receivers import KNOWN_OF_CLIENT_MAX, Receivers

BOUNDS = {"per_receiver": 2, "per_client": 3}


def receivers(*pairs):
    made = Receivers()
    for pair in pairs:
        made.add(pair)
    return made


def test_one_of_each_client_comes_before_a_second_of_any():
    many = [(1, f"host-{number}") for number in range(9)]
    assert receivers(*many, (2, "other")).next(3, **BOUNDS) == [(1, "host-0"), (2, "other"), (1, "host-1")]


def test_who_was_served_comes_last_the_next_time():
    turns = receivers((1, "a"), (1, "b"), (2, "c"))
    assert [turns.next(1, **BOUNDS) for _ in range(4)] == [[(1, "a")], [(2, "c")], [(1, "b")], [(2, "c")]]


def test_a_receiver_at_its_bound_is_passed_over_whoever_sends():
    turns = receivers((1, "slow"), (1, "quick"), (2, "slow"))
    turns.begin((1, "slow"))
    turns.begin((2, "slow"))
    assert turns.next(5, **BOUNDS) == [(1, "quick")]
    turns.end((1, "slow"))
    assert turns.next(5, **BOUNDS) == [(2, "slow"), (1, "quick")], "one of the two, whose turn it is"


def test_a_receiver_gets_no_more_than_its_bound_from_many_clients_at_once():
    turns = receivers(*[(client, "popular") for client in range(9)])
    assert len(turns.next(9, **BOUNDS)) == 2


def test_a_client_at_its_bound_leaves_the_rest_to_others():
    turns = receivers(*[(1, f"host-{number}") for number in range(9)], (2, "other"))
    assert turns.next(9, **BOUNDS).count((2, "other")) == 1
    for number in range(3):
        turns.begin((1, f"host-{number}"))
    assert turns.next(9, **BOUNDS) == [(2, "other")]


def test_clients_at_their_bounds_do_not_hide_those_behind_them():
    turns = receivers(*[(client, "slow") for client in range(5)], (5, "quick"))
    for client in (0, 1):
        turns.begin((client, "slow"))
    assert turns.next(1, **BOUNDS) == [(5, "quick")]


def test_nobody_is_known_once_nothing_is_due():
    turns = receivers((1, "a"), (1, "b"))
    assert turns
    turns.remove((1, "a"))
    turns.remove((1, "b"))
    turns.remove((1, "b"))
    assert not turns
    assert turns.next(5, **BOUNDS) == []


def test_no_client_fills_the_memory_with_its_receivers():
    turns = receivers(*[(1, f"host-{number}") for number in range(KNOWN_OF_CLIENT_MAX + 9)])
    assert len(turns.next(10_000, per_receiver=1, per_client=10_000)) == KNOWN_OF_CLIENT_MAX
