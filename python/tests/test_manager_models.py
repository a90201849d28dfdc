"""A manager's dict and list against Python's own, by random operations."""

import collections
import enum
import fractions
import math
from decimal import Decimal

import numpy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import tenfold


class Colour(enum.IntEnum):
    NONE = 0
    RED = 1
    BLUE = 2


class Name(enum.StrEnum):
    A = "a"
    ONE = "1"


class Plain(enum.Enum):
    X = 1
    Y = 2


class Odd:
    """Equals its like and nothing else."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Odd) and other.value == self.value

    def __hash__(self):
        return hash(("odd", self.value))

    def __repr__(self):
        return f"Odd({self.value})"


class Like:
    """Equals a number, though it is none."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return self.number == (other.number if isinstance(other, Like) else other)

    def __hash__(self):
        return hash(self.number)

    def __repr__(self):
        return f"Like({self.number})"


Point = collections.namedtuple("Point", "x y")

plain_numbers = [0, False, 0.0, -0.0, Colour.NONE, 1, True, 1.0, 1 + 0j, Colour.RED, Like(1), 2]
plain_numbers += [Colour.BLUE, 0.5, -1, -2, math.inf, -math.inf, 1j, complex(-0.0, 1)]
plain_numbers += [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2.0**63, 2.0**80, 2**80]
exact_numbers = [Decimal(1), Decimal("1.00"), fractions.Fraction(1), Decimal(2), Decimal("0.5")]
exact_numbers += [fractions.Fraction(1, 2), fractions.Fraction(1, 3), Decimal("0.1")]
exact_numbers += [Decimal(2**80), Decimal("inf")]
numpys_numbers = [numpy.int64(1), numpy.uint8(1), numpy.float32(1), numpy.float64(1), numpy.int8(2)]
numpys_numbers += [numpy.bool_(True), numpy.float32(0.5), numpy.uint64(2**63)]
texts = st.sampled_from(
    [
        "",
        "a",
        Name.A,
        numpy.str_("a"),
        collections.UserString("a"),
        "1",
        Name.ONE,
        "é",
        "\ud800",
        "x" * 300,
        b"",
        b"a",
        numpy.bytes_(b"a"),
        b"x" * 300,
    ]
)
others = st.sampled_from([None, Plain.X, Plain.Y, Odd(1), Odd(2), Odd("1"), int, len, ...])


def keys_with(numbers):
    return st.recursive(
        st.one_of(st.sampled_from(numbers), texts, others),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(tuple),
            st.frozensets(inner, max_size=3),
            st.tuples(inner, inner).map(lambda pair: Point(*pair)),
        ),
        max_leaves=4,
    )


# A Decimal and an integer of numpy's cannot be compared.
exact_keys = keys_with(plain_numbers + exact_numbers)
numpys_keys = keys_with(plain_numbers + numpys_numbers)
values = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=200))

manager = None


def setup_module():
    global manager
    manager = tenfold.Manager()


def teardown_module():
    manager.shutdown()


def same(mine, theirs):
    """Equal, in the same order, and of the same types throughout."""
    if type(mine) is not type(theirs):
        return False
    if isinstance(mine, dict):
        return same(list(mine.items()), list(theirs.items()))
    if isinstance(mine, list | tuple):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(mine, frozenset):
        return mine == theirs and {*map(type, mine)} == {*map(type, theirs)}
    return mine == theirs and repr(mine) == repr(theirs)


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return type(error), error.args if isinstance(error, KeyError) else None


def both(mine, theirs, call):
    left, right = outcome(call, mine), outcome(call, theirs)
    assert same(left, right), (left, right)


def dict_machine(keys):
    class DictMachine(RuleBasedStateMachine):
        @initialize(start=st.dictionaries(keys, values, max_size=4))
        def begin(self, start):
            self.shared, self.model = manager.dict(start), dict(start)

        @rule(key=keys, value=values)
        def set(self, key, value):
            self.shared[key] = self.model[key] = value

        @rule(key=keys)
        def look_up(self, key):
            both(self.shared, self.model, lambda d: d[key])
            both(self.shared, self.model, lambda d: d.get(key, "none"))
            both(self.shared, self.model, lambda d: key in d)

        @rule(key=keys)
        def delete(self, key):
            both(self.shared, self.model, lambda d: d.__delitem__(key))

        @rule(key=keys, default=values)
        def pop(self, key, default):
            both(self.shared, self.model, lambda d: d.pop(key, default))
            both(self.shared, self.model, lambda d: d.pop(key))

        @rule(key=keys, value=values)
        def set_default(self, key, value):
            both(self.shared, self.model, lambda d: d.setdefault(key, value))

        @rule()
        def pop_item(self):
            both(self.shared, self.model, lambda d: d.popitem())

        @rule(pairs=st.lists(st.tuples(keys, values), max_size=6))
        def update(self, pairs):
            self.shared.update(pairs, x=1)
            self.model.update(pairs, x=1)

        @rule(more=st.dictionaries(keys, values, max_size=3))
        def operators(self, more):
            assert same(self.shared | more, self.model | more)
            assert same(more | self.shared, more | self.model)
            self.shared |= more
            self.model |= more

        @rule()
        def clear(self):
            self.shared.clear()
            self.model.clear()

        @rule(key=st.sampled_from([[], {}, (1, []), ("a", Odd(1), {})]))
        def unhashable(self, key):
            both(self.shared, self.model, lambda d: d.get(key))
            both(self.shared, self.model, lambda d: d.__setitem__(key, 1))
            both(self.shared, self.model, lambda d: key in d)

        @invariant()
        def equal(self):
            if not hasattr(self, "model"):
                return
            assert same(self.shared.copy(), self.model)
            assert same(self.shared.keys(), list(self.model))
            assert same(list(self.shared), list(self.model))
            assert same(self.shared.values(), list(self.model.values()))
            assert same(self.shared.items(), list(self.model.items()))
            assert same(list(reversed(self.shared)), list(reversed(self.model)))
            assert len(self.shared) == len(self.model)

    return DictMachine


class ListMachine(RuleBasedStateMachine):
    items = st.one_of(values, st.sampled_from(plain_numbers + exact_numbers))
    indexes = st.one_of(
        st.integers(-12, 12), st.sampled_from([True, numpy.int64(-1), 2**70, -(2**70)])
    )
    slices = st.builds(
        slice,
        st.none() | st.integers(-12, 12),
        st.none() | st.integers(-12, 12),
        st.none() | st.sampled_from([1, 2, -1, -3, True]),
    )

    @initialize(start=st.lists(items, max_size=8))
    def begin(self, start):
        self.shared, self.model = manager.list(start), list(start)

    @rule(item=items)
    def append(self, item):
        self.shared.append(item)
        self.model.append(item)

    @rule(more=st.lists(items, max_size=4))
    def extend(self, more):
        self.shared.extend(iter(more))
        self.model.extend(more)
        self.shared += more
        self.model += more

    @rule(index=indexes, item=items)
    def insert(self, index, item):
        both(self.shared, self.model, lambda one: one.insert(index, item))

    @rule(index=indexes)
    def look_up(self, index):
        both(self.shared, self.model, lambda one: one[index])

    @rule(index=indexes, item=items)
    def set(self, index, item):
        both(self.shared, self.model, lambda one: one.__setitem__(index, item))

    @rule(index=indexes)
    def delete(self, index):
        both(self.shared, self.model, lambda one: one.__delitem__(index))
        both(self.shared, self.model, lambda one: one.pop(index))

    @rule()
    def pop(self):
        both(self.shared, self.model, lambda one: one.pop())

    @rule(where=slices)
    def look_at_slice(self, where):
        both(self.shared, self.model, lambda one: one[where])

    @rule(where=slices, more=st.lists(items, max_size=4))
    def set_slice(self, where, more):
        both(self.shared, self.model, lambda one: one.__setitem__(where, more))

    @rule(where=slices)
    def delete_slice(self, where):
        both(self.shared, self.model, lambda one: one.__delitem__(where))

    @rule(item=items, start=st.integers(-9, 9))
    def search(self, item, start):
        both(self.shared, self.model, lambda one: one.count(item))
        both(self.shared, self.model, lambda one: one.index(item))
        both(self.shared, self.model, lambda one: one.index(item, start))
        both(self.shared, self.model, lambda one: item in one)

    @rule(item=items)
    def remove(self, item):
        both(self.shared, self.model, lambda one: one.remove(item))

    @rule(reverse=st.booleans())
    def sort(self, reverse):
        both(self.shared, self.model, lambda one: one.sort(key=str, reverse=reverse))

    @rule()
    def reverse(self):
        self.shared.reverse()
        self.model.reverse()

    @rule(times=st.integers(-1, 3))
    def multiply(self, times):
        both(self.shared, self.model, lambda one: one * times)
        both(self.shared, self.model, lambda one: times * one)
        if len(self.model) < 50:
            self.shared *= times
            self.model *= times

    @rule(more=st.lists(items, max_size=3))
    def add(self, more):
        both(self.shared, self.model, lambda one: one + more)

    @rule()
    def clear(self):
        self.shared.clear()
        self.model.clear()

    @invariant()
    def equal(self):
        if not hasattr(self, "model"):
            return
        assert same(self.shared[:], self.model)
        assert same(list(self.shared), self.model)
        assert same(list(reversed(self.shared)), list(reversed(self.model)))
        assert len(self.shared) == len(self.model)


calm = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDictOfExactKeys = dict_machine(exact_keys).TestCase
TestDictOfExactKeys.settings = calm
TestDictOfNumpysKeys = dict_machine(numpys_keys).TestCase
TestDictOfNumpysKeys.settings = calm
TestList = ListMachine.TestCase
TestList.settings = calm


@settings(deadline=None, max_examples=300)
@given(pair=st.one_of(st.tuples(exact_keys, exact_keys), st.tuples(numpys_keys, numpys_keys)))
@example(pair=((1, "a"), (True, Name.A)))
@example(pair=(Point(1, 2), (1.0, Decimal(2))))
@example(pair=(frozenset([1, "a"]), frozenset([Name.A, 1.0])))
def test_two_keys_are_one_when_python_says_so(pair):
    first, second = pair
    shared, model = manager.dict(), {}
    for one in (shared, model):
        one[first] = 1
        one[second] = 2
    assert same(shared.items(), list(model.items()))


def test_nan_is_never_found():
    shared = manager.dict()
    nan = math.nan
    shared[nan] = 1
    shared[nan] = 2
    shared[(1, nan)] = 3
    assert len(shared) == 3
    assert nan not in shared
    assert (1, nan) not in shared
    with pytest.raises(KeyError):
        shared[nan]


def look_up(shared, keys):
    for number, key in enumerate(keys):
        assert shared[key] == number, key
        shared[key] = number + 1000


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_hashes_are_the_same_in_all_processes(seed, method, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", seed)
    wanted = ["a", b"a", 1, 0.5, None, ("a", 1, (None, b"")), Odd("x"), frozenset("abc"), Plain.X]
    wanted += [1j, 2**70, Decimal("0.1"), int, "\ud800"]
    shared = manager.dict()
    for number, key in enumerate(wanted):
        shared[key] = number
    process = tenfold.get_context(method).Process(target=look_up, args=(shared, wanted))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert shared.values() == [number + 1000 for number in range(len(wanted))]
    assert len(shared) == len(wanted)


class Raising:
    """A key whose comparison fails once it is told to."""

    fail = False

    def __eq__(self, other):
        if Raising.fail:
            raise ZeroDivisionError
        return isinstance(other, Raising)

    def __hash__(self):
        return 1


def test_what_a_comparison_raises_reaches_the_caller():
    shared = manager.dict({Raising(): 1})
    Raising.fail = True
    try:
        for call in (lambda: shared[Raising()], lambda: shared.update({Raising(): 2})):
            with pytest.raises(ZeroDivisionError):
                call()
    finally:
        Raising.fail = False
    assert shared[Raising()] == 1
    # A lock of the engine that were still held would stop this.
    shared["x"] = 2
    assert len(shared) == 2


def sort_key(item):
    # Somebody changes the list while it is sorted.
    if sort_key.left:
        sort_key.left -= 1
        sort_key.shared.append(-sort_key.left)
    return item


def test_sort_and_remove_see_what_came_meanwhile():
    shared = manager.list(range(10, 0, -1))
    sort_key.shared, sort_key.left = shared, 3
    shared.sort(key=sort_key)
    assert shared[:] == [-2, -1, 0, *range(1, 11)]
