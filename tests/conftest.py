"""Which array library the tests run on: ``pytest --backend NAME``, one of the files in backends/."""

import signal

import pytest

from tests.harness.backend import Backend, deviations, dtypes_alone, load, measured, slow_to_call
from tests.harness.covering import covering

_BACKENDS = pytest.StashKey[list[Backend]]()
_FIXTURES = {"backend", "backend_one_device", "backend_one_chunking", "backend_one_mode"}


def pytest_sessionstart() -> None:
    """Let tests send signals that this process was started to ignore, and its children with it.

    A shell starts commands in the background so that they ignore Ctrl-C, and nohup so that they ignore SIGHUP.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--backend`` and its choices."""
    parser.addoption("--backend", default="numpy", metavar="NAME", help="array library: a file in backends/")
    parser.addoption("--device", metavar="NAME", help="run on this device, such as cuda:0, and not on the file's")
    parser.addoption("--one-mode", action="store_true", help="run in the first of its modes only, on all devices")


def pytest_configure(config: pytest.Config) -> None:
    """Import the library; one that was asked for and is not there is an error."""
    backends = load(config.getoption("--backend"), config.getoption("--device"))
    first = backends[0].mode
    config.stash[_BACKENDS] = [x for x in backends if x.mode == first or x.rules or not config.getoption("--one-mode")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `backend` (each mode and device), `backend_one_device` (no brief mode, one device), and `dtype`.

    `backend_one_chunking` is the single mode in which derivative rules are tested: the one that has all functions.
    `backend_one_mode` is the first mode alone.
    """
    for fixture in _FIXTURES.intersection(metafunc.fixturenames):
        backends = metafunc.config.stash[_BACKENDS]
        if fixture == "backend_one_mode":
            backends = backends[:1]
        if fixture == "backend_one_device":
            backends = [x for x in backends if not x.brief]
        if fixture == "backend_one_chunking":
            backends = [x for x in backends if x.rules]
        if "dtype" in metafunc.fixturenames:
            pairs = [(x, dtype) for x in backends for dtype in x.dtypes]
            metafunc.parametrize((fixture, "dtype"), pairs, ids=[f"{x}-{dtype}" for x, dtype in pairs])
        else:
            metafunc.parametrize(fixture, backends, ids=str)


@pytest.hookimpl(trylast=True)  # a sample of what `-k` has selected, and not the reverse
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of other backends; make each known deviation a strict xfail, which fails once it is mended.

    A test that uses no backend runs on NumPy alone. A library that is slow to call gets a sample of the combinations of
    a test's parameters, in which each deviation occurs. Coverage is paused in tests that add nothing to NumPy's.
    """
    chosen = [item for item in items if _concerns(config.getoption("--backend"), item)]
    deviating = {
        item.nodeid: deviation
        for deviation in deviations(config.getoption("--backend"), config.getoption("--device"))
        for item in chosen
        if deviation["test"] in item.nodeid
    }
    if slow_to_call(config.getoption("--backend")):
        first = {deviation["test"]: nodeid for nodeid, deviation in reversed(deviating.items())}
        chosen = covering(chosen, kept=first.values())
    if left := set(items).difference(chosen):
        config.hook.pytest_deselected(items=left)
        items[:] = chosen
    paths = measured(config.getoption("--backend"))
    for item in items:
        if not item.nodeid.startswith(paths):
            item.add_marker(pytest.mark.no_cover)
        if deviation := deviating.get(item.nodeid):
            reason = f"{deviation['reason']} ({deviation['issue']})"
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def _concerns(backend: str, item: pytest.Item) -> bool:
    """Whether a test is to run on `backend`."""
    if item.nodeid.startswith(dtypes_alone(backend)) and not item.nodeid.partition("[")[0].endswith("dtypes"):
        return False
    if mark := item.get_closest_marker("backends"):
        return backend in mark.args
    return backend == "numpy" or not _FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
