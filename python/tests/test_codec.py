"""Objects to bytes and back: what comes out is what went in, and garbage is an error."""

import contextlib
import copyreg
import pickle
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SimpleQueue, _native, reduction

PICKLE, INT_64, STR, BYTES, TUPLE, BUFFERS, INT, INT_48, BYTEARRAY = 0, 4, 6, 7, 8, 9, 10, 11, 12

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
anything = st.recursive(
    st.one_of(plain, st.binary().map(bytearray), st.complex_numbers(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner),
        st.tuples(inner, inner, inner),
        st.dictionaries(plain, inner),
        st.frozensets(plain),
    ),
    max_leaves=12,
)


def same(one, other):
    """Whether they are equal and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, frozenset):
        return one == other
    return one == other and repr(one) == repr(other)


def through_queue(obj):
    """Return what arrives when `obj` is sent."""
    queue = SimpleQueue()
    queue.put(obj)
    return queue.get()


@given(anything)
def test_what_goes_in_comes_out(obj):
    assert same(_native.decoded(_native.encoded(obj)), obj)


@given(st.tuples(plain, plain) | st.lists(plain, max_size=40).map(tuple))
def test_flat_tuples(obj):
    assert same(_native.decoded(_native.encoded(obj)), obj)


@settings(max_examples=60, deadline=None)
@given(anything, st.sampled_from([0, 1, 60, 4095, 4096, 4097, 65_535, 65_536, 300_000, 1_048_576]))
def test_large_things_travel_too(obj, size):
    text = "ü" * (size // 2)
    for large in (
        b"x" * size,
        bytearray(b"y" * size),
        text,
        [obj, b"z" * size, text, {"k": bytearray(size)}],
    ):
        assert same(through_queue(large), large)


class Number(int):
    """No exact int."""


def test_the_native_path_is_taken_by_exact_types_only():
    assert _native.encoded(5)[0] == INT
    assert _native.encoded(-(2**40))[0] == INT_48
    assert _native.encoded(2**63 - 1)[0] == INT_64
    assert _native.encoded("five")[0] == STR
    assert _native.encoded(b"5")[0] == BYTES
    assert _native.encoded(bytearray(b"5"))[0] == BYTEARRAY
    assert _native.encoded((1, "a", None))[0] == TUPLE
    assert _native.encoded(2**64)[0] == PICKLE
    assert _native.encoded((1, [2]))[0] == PICKLE
    assert _native.encoded("\ud800")[0] == PICKLE
    assert type(_native.decoded(_native.encoded("\ud800"))) is str
    assert _native.encoded(Number(5))[0] == PICKLE
    assert type(_native.decoded(_native.encoded(Number(5)))) is Number


@settings(max_examples=1000)
@given(
    st.integers(1, 255).filter(lambda tag: tag != BUFFERS),
    st.binary(max_size=30) | st.lists(st.integers(0, 12), max_size=30).map(bytes),
)
def test_garbage_is_an_error(tag, body):
    try:
        decoded = _native.decoded(bytes([tag]) + body)
    except ValueError:
        return
    # What was no error says the same in the end.
    again = _native.decoded(_native.encoded(decoded))
    assert same(again, decoded) or again != again or tag == TUPLE


def test_no_bytes_at_all_are_an_error():
    for garbage in (b"", bytes([PICKLE]), bytes([BUFFERS])):
        with pytest.raises((ValueError, EOFError)):
            _native.decoded(garbage)


@settings(max_examples=400)
@given(
    st.integers(0, 2**32 - 1) | st.integers(0, 3),
    st.integers(0, 2**64 - 1) | st.integers(0, 40),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=4),
    st.integers(0, 300),
)
def test_a_head_that_makes_no_sense_is_an_error(count, pickle_length, lengths, rest):
    head = struct.pack("<BIQ", BUFFERS, count, pickle_length)
    body = b"".join(struct.pack("<Q", length) for length in lengths)
    with contextlib.suppress(ValueError, EOFError, IndexError, KeyError, pickle.UnpicklingError):
        _native.decoded(head + body + bytes(rest))


def test_every_truncation_of_a_message_is_an_error():
    for obj in [7, 1.5, (1, "abc", b"xyz", None), ("ä" * 9,)]:
        whole = _native.encoded(obj)
        for length in range(len(whole)):
            if whole[0] in (INT, TUPLE) or length == 0:
                with pytest.raises(ValueError):
                    _native.decoded(whole[:length])
        with pytest.raises(ValueError):
            _native.decoded(whole + b"\0")


class Registered:
    """Something that a registered reducer pickles."""

    def __init__(self, value):
        self.value = value


class Unpicklable:
    """Something that refuses, from outside of pickle."""

    def __reduce__(self):
        raise RuntimeError("not me")


def test_reducers_are_found_wherever_and_whenever_they_are_registered():
    for place in (copyreg.dispatch_table, reduction.ForkingPickler._extra_reducers):
        try:
            for name in ("first", "second"):
                place[Registered] = lambda obj, name=name: (Registered, ((name, obj.value),))
                assert through_queue([Registered(5)])[0].value == (name, 5)
        finally:
            del place[Registered]
    assert through_queue([Registered(5)])[0].value == 5


def test_errors_of_pickling_are_pickles_own():
    with pytest.raises(RuntimeError, match="not me"):
        _native.encoded(Unpicklable())
    with pytest.raises((TypeError, pickle.PicklingError)):
        _native.encoded([threading.Lock()])


def test_cloudpickle_is_used_where_pickle_cannot():
    pytest.importorskip("cloudpickle")
    add = through_queue((lambda n: lambda m: m + n)(3))
    assert add(4) == 7


def test_a_tuple_that_contains_itself_and_a_shared_list():
    shared = [1]
    loop = ([], shared, shared)
    loop[0].append(loop)
    arrived = through_queue(loop)
    assert arrived[0][0] is arrived
    assert arrived[1] is arrived[2]
