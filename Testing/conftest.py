"""What holds for every test: a home of its own, no display, repeatable examples, no silent skips on CI, two phases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytest has put this folder on the path. There the package slicer would take our folder slicer for a part of itself and
# import every file in it.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("MPLBACKEND", "Agg")

ON_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
MAY_SKIP_ON_CI = ("gpu", "slicer_source")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TESTS = Path(__file__).resolve().parent
BESIDE_OTHERS = (TESTS / "unit", TESTS / "slicer")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two halves of `make test`."""
    parser.addoption("--phase", choices=("together", "alone"),
                     help="only tests that may run beside others, or only those that may not; without it, all")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What lies in other folders is not even imported for the tests that run beside others."""
    is_outside = collection_path.parent == TESTS and collection_path.is_dir() and collection_path not in BESIDE_OTHERS
    return True if config.getoption("phase") == "together" and is_outside else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the other phase."""
    if config.getoption("phase"):
        others = [item for item in items if _is_alone(item) != (config.getoption("phase") == "alone")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None or not set(BESIDE_OTHERS) & set(item.path.parents)


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis: the same examples on every CI run; no deadline, because machines differ."""
    from hypothesis import settings

    settings.register_profile("medmae", deadline=None)
    settings.register_profile("medmae-ci", deadline=None, derandomize=True, database=None)
    settings.load_profile("medmae-ci" if ON_CI else "medmae")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """On CI everything a test may need is present, so a skip means that something is not tested any more.

    Names of files may be no Unicode; a process that runs tests beside others could not send what was printed of them.
    """
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    if ON_CI and report.skipped and not hasattr(report, "wasxfail") and not _may_skip(item):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole module that is skipped while it is imported."""
    report = yield
    if ON_CI and report.skipped and not _may_skip(collector):
        _fail(report)
    return report


def _may_skip(node: pytest.Collector | pytest.Item) -> bool:
    return any(node.get_closest_marker(name) for name in MAY_SKIP_ON_CI)


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    report.outcome = "failed"
    report.longrepr = f"{reason}\nSkipped on CI, where only tests marked {' or '.join(MAY_SKIP_ON_CI)} may be skipped."


@pytest.fixture(autouse=True)
def medmae_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder for this test: the user's models and runs are neither seen nor touched."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MEDMAE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real development data beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the development data in ../shared/data, which is absent here")
    return SHARED_DATA
