"""Errors on their way to another process: by pickle, and by what JSON keeps of an exception."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest

import deepcall_async
from deepcall_async import (
    ApiError,
    ConnectFailed,
    DeepCallError,
    Group,
    GroupUnavailable,
    OutcomeUnknown,
    ServerFault,
    TooManyFailures,
)

CLASSES = sorted(
    (
        each
        for each in vars(deepcall_async.errors).values()
        if isinstance(each, type) and issubclass(each, DeepCallError)
    ),
    key=lambda each: each.__name__,
)


def refusal(kind: type[DeepCallError] = GroupUnavailable) -> DeepCallError:
    error = kind("groups.list: no")
    error.endpoint, error.attempts = "groups.list", 2
    if isinstance(error, ApiError):
        error.code, error.http_status, error.message, error.retry_after = 1503, 200, "no", 0.5
    return error


@pytest.mark.parametrize("kind", CLASSES)
def test_pickles_and_copies_hold_every_attribute(kind: type[DeepCallError]) -> None:
    error = refusal(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
        assert again.args == error.args


def test_a_cause_of_this_package_is_pickled_and_a_foreign_one_is_not() -> None:
    class Unpicklable(Exception):
        pass

    last = refusal(ServerFault)
    last.__cause__ = Unpicklable()
    error = TooManyFailures("stopped")
    error.__cause__ = last
    written = io.BytesIO()
    pickler = pickle.Pickler(written)
    # Where Dask was imported, the table of the process pickles exceptions in Dask's own way.
    pickler.dispatch_table = {}
    pickler.dump(error)
    again = pickle.loads(written.getvalue())
    assert isinstance(again.__cause__, ServerFault)
    assert again.__cause__.code == 1503
    assert again.__cause__.__cause__ is None


@pytest.mark.parametrize("kind", CLASSES)
def test_class_and_args_through_json_are_the_whole_error(kind: type[DeepCallError]) -> None:
    error = refusal(kind)
    again = kind(*json.loads(json.dumps(error.args)))
    assert vars(again) == vars(error)
    assert str(again) == "groups.list: no"


def test_what_json_cannot_hold_is_left_out_of_args() -> None:
    error = OutcomeUnknown("x")
    assert error.args == ("x",)
    error.candidates = (Group(unique_id=1, name="a"),)
    error.attempts = 1
    assert error.args == ("x", {"attempts": 1})
    error.args = ("y",)
    assert (str(error), error.attempts) == ("y", 1)


def test_args_set_nothing_that_the_class_does_not_declare() -> None:
    error = ConnectFailed("x", {"fatal": True, "__class__": DeepCallError, "code": 1})
    assert vars(error) == {"fatal": True}
