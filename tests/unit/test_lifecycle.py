"""The tables of the core's life are total: every pair of a state and a fact is in them, or is an InvalidTransition."""

import typing

import pytest

from orchestrator.core import event as e
from orchestrator.core.lifecycle import (
    RUN,
    TASK,
    AwaitingApproval,
    Closed,
    Expanded,
    InvalidTransition,
    Open,
    Paused,
    Pending,
    Ready,
    Running,
    RunState,
    Settled,
    TaskState,
    Unknown,
    Waiting,
    next_state,
    shown,
)

STATES = (
    Pending(), Ready(), AwaitingApproval(b"", "", 0.0), Running(), Expanded(), Waiting(1, "join", "", 0.0), Unknown(1),
    Settled("failed"),
)  # fmt: skip
RUNS = (Open(), Paused(), Closed("failed"))
FACTS = typing.get_args(e.Event)


def test_the_samples_cover_every_state():
    assert {type(state) for state in STATES} == set(typing.get_args(TaskState))
    assert {type(state) for state in RUNS} == set(typing.get_args(RunState))


@pytest.mark.parametrize("state", STATES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("fact", FACTS, ids=lambda one: one.__name__)
def test_every_pair_is_in_the_table_or_an_invalid_transition(state, fact):
    _check(TASK, state, fact)


@pytest.mark.parametrize("fact", FACTS, ids=lambda one: one.__name__)
def test_every_pair_of_a_run_is_in_its_table_or_an_invalid_transition(fact):
    for state in RUNS:
        _check(RUN, state, fact)


def _bare(fact):
    """The tables look only at the type of a fact."""
    return fact(*(None for _ in fact.__struct_fields__))


def _check(table, state, fact):
    one = _bare(fact)
    if (type(state), fact) in table:
        assert next_state(table, state, one, "story") is table[type(state), fact]
    else:
        with pytest.raises(InvalidTransition, match=f"{fact.__name__} met .*: the whole story"):
            next_state(table, state, one, "the whole story")


def test_the_tables_name_only_known_states_and_facts():
    for (state, fact), target in TASK.items():
        assert fact in FACTS
        assert {state, target} <= set(typing.get_args(TaskState))
    assert all(state is not Closed for state, _ in RUN)


def test_settled_is_left_only_by_the_retry_of_an_open_failure():
    assert {fact for (state, fact), target in TASK.items() if state is Settled and target is not Settled} == {
        e.TaskRequeued
    }


def test_every_state_has_a_word_for_people():
    assert {shown(state) for state in STATES} == {
        "pending", "ready", "awaiting_approval", "running", "waiting", "unknown", "failed",
    }  # fmt: skip
