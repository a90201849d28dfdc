#!/usr/bin/env python3
"""Run CPython's own multiprocessing tests with `multiprocessing` meaning tenfold.

usage: cpython_suite.py [--method fork|spawn|forkserver ...] [--only REGEX] [--seconds N]

Run it with a Python that has tenfold installed. Each test class runs in a process of its own, two at a time, with a
time limit. The exit status is 0 if all tests passed but for those below, which cannot hold for another package.
"""

import argparse
import concurrent.futures
import contextlib
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

METHODS = ("fork", "spawn", "forkserver")

# Regex on Class.test, and why it does not apply.
NOT_APPLICABLE = {
    # They look into the standard library's own objects.
    r"TestForkAwareThreadLock\..*": "util.ForkAwareThreadLock's private registry",
    r"TestResourceTracker\..*": "private names of the resource tracker and of its semaphores",
    r"TestSimpleQueue\.test_closed": "the private pipe of a SimpleQueue",
    r".*TestMyManager\..*": "BaseManager._process",
    r".*TestCondition\.test_notify(_all|_n)?": "the semaphores inside a Condition",
    r".*TestFinalize\..*": "util._finalizer_registry",
    r".*TestHeap\..*": "the allocator inside BufferWrapper",
    r".*TestPool\.test_(make_pool|resource_warning|terminate)": "Pool._pool, Pool._state; racy up to 3.12",
    r".*PoolWorkerLifetime\.test_pool_worker_lifetime": "Pool._repopulate_pool",
    r".*TestQueue\.test_queue_feeder_on_queue_feeder_error": "the feeder thread",
    r".*TestSharedMemory\.test_shared_memory_(basics|recreate|SharedMemoryServer_ignores_sigint|tracking)": "_name",
    r".*TestSharedMemory\.test_shared_memory_(ShareableList_basics|name_with_embedded_null)": "private formats",
    r".*TestProcess\.test_forkserver_sig(int|kill)": "the pid inside of the forkserver module",
    r"ChallengeResponseTest\..*|OtherTest\..*": "private names of multiprocessing.connection",
    r"TestFlags\..*|SemLockTests\..*": "never run the replacement",
    # What tenfold promises otherwise.
    r".*TestQueue\.test_queue_feeder_donot_stop_onexc": "wants put() of what cannot be pickled not to raise",
    r"TestStartMethod\.test_mixed_startmethod": "wants an error where a lock crosses contexts",
    r"MiscTestCase\.test_spawn_sys_executable_none_allows_import": "void: asserts that nothing was imported yet",
}


SUITE = """
import test._test_multiprocessing
test._test_multiprocessing.install_tests_in_module_dict(globals(), {method!r})
"""


def is_applicable(name):
    return not any(re.fullmatch(pattern, name) for pattern in NOT_APPLICABLE)


def tests_of(module):
    """Class → names of its applicable tests."""
    found = {}
    for name, value in sorted(vars(module).items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            names = unittest.defaultTestLoader.getTestCaseNames(value)
            names = [test for test in names if is_applicable(f"{name}.{test}")]
            if names:
                found[name] = names
    return found


def child(method, class_name):
    """Run one class; the exit status says how it went."""
    # A shell that runs a job in the background has it ignore Ctrl-C; the suite sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = importlib.import_module(f"suite_{method}")
    case = getattr(module, class_name)
    suite = unittest.TestSuite([unittest.TestSuite(map(case, tests_of(module)[class_name]))])
    module.setUpModule()
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    module.tearDownModule()
    return 0 if result.wasSuccessful() else 1


@contextlib.contextmanager
def environment():
    """What the suite runs in: a module for each method, which its children import too, and no cloudpickle."""
    files = {f"suite_{method}.py": SUITE.format(method=method) for method in METHODS}
    # The suite wants a lambda not to pickle.
    files["cloudpickle.py"] = "raise ImportError('hidden from the suite')\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        yield {**os.environ, "PYTHONPATH": folder}


def run_class(method, class_name, seconds, variables):
    command = [sys.executable, "-m", "tenfold", os.path.abspath(__file__), "--child", method, class_name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=variables,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as late:
        return class_name, f"not done after {seconds} s", (late.stdout or b"").decode(errors="replace")
    return class_name, "" if done.returncode == 0 else f"exit code {done.returncode}", done.stdout


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--only", default="", help="a regex on class names")
    parser.add_argument("--seconds", type=float, default=180, help="time limit of a class")
    options = parser.parse_args()
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test._test_multiprocessing") is None:
        print("CPython's own suite: skipped, this Python was installed without its tests")
        return 0
    bad = 0
    for method in options.method:
        started = time.monotonic()
        failed, count = run_method(method, options)
        for name, why, output in failed:
            print(f"--- {method} {name}: {why}\n{output[-4000:]}")
        bad += len(failed)
        took = time.monotonic() - started
        passed = count - len(failed)
        print(f"CPython's own suite, {method}: {passed} classes passed, {len(failed)} failed, {took:.0f} s", flush=True)
    return 1 if bad else 0


def run_method(method, options):
    """Outcomes of the classes that failed, and the number of all."""
    with environment() as variables:
        listed = subprocess.run(
            [sys.executable, __file__, "--list", method], stdout=subprocess.PIPE, text=True, check=True, env=variables
        )
        names = [name for name in listed.stdout.split() if re.search(options.only, name)]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda name: run_class(method, name, options.seconds, variables), names))
        # What fails is run once more, alone: some of these tests race with the clock.
        outcomes = [run_class(method, done[0], options.seconds, variables) if done[1] else done for done in outcomes]
    return [outcome for outcome in outcomes if outcome[1]], len(names)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        print(*tests_of(importlib.import_module(f"suite_{sys.argv[2]}")))
        sys.exit(0)
    sys.exit(main())
