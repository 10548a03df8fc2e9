"""The command: what it prints at 80 columns, how it exits, and that it always says what to install or to correct."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import dask.threaded
import numpy as np
import pytest
from rich.text import Text
from typer.testing import CliRunner

import pullback
from pullback import affine_backward, loss_and_gradients
from pullback._cli import app, backends, commands, demo
from pullback._ops import PAIRS

TABLES = [tomllib.loads(path.read_text()) for path in sorted(Path(__file__).parents[2].glob("backends/*.toml"))]
# By the name of the package: array-api-strict, and not strict.
FILES = {file["import"].partition(".")[0].replace("_", "-"): file for file in TABLES}
# Those that the commands run on by themselves.
CPU = sorted(name for name, file in FILES.items() if "cpu" in file["tags"] and "tests" not in file)


# One worker imports all libraries, and runs the demo for all the tests that read what it printed.
ALL_BACKENDS = pytest.mark.xdist_group("all backends")


@pytest.fixture(autouse=True, scope="module")
def terminal() -> Iterator[pytest.MonkeyPatch]:
    """Have 80 columns, and no variable that tells rich whether it writes to a terminal."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("COLUMNS", "80")
        for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        yield monkeypatch


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Outcome:
    result = CliRunner().invoke(app.application(), arguments, prog_name="pullback")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def text(result: Outcome) -> str:
    """Return what was printed, in one line without colours and frames."""
    return " ".join(Text.from_ansi(result.stdout).plain.replace("│", " ").split())


def rows(printed: str) -> dict[str, list[str]]:
    """Return the rows of the table that stand in one line each, by their first cell."""
    lines = (line.split() for line in printed.splitlines() if " is not " not in line)
    return {cells[0]: cells[1:] for cells in lines if cells and cells[0] in FILES}


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have Python find no package of this name."""

    def find_spec(module: str, *_: object) -> None:
        if module == name:
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["Usage: pullback", "Start with pullback demo", "demo Train a classifier", "backends List the array"]),
        ([], ["gradient Compute a loss and its gradients for a batch on disk"]),
        (["--help"], ["Usage: pullback", "--version"]),
        (["demo", "--help"], ["--backend", "NAME", "Example: pullback demo --backend dask", "Exits with 1 if"]),
        (
            ["gradient", "--help"],
            ["--upstream DA", "[default: 1GiB]", "Example: pullback gradient --z z.npy", "130 for Ctrl-C"],
        ),
        (["fit", "--help"], ["--l2 L", "OUT.checkpoint", "Example: pullback fit --z z.npy", "[default: 100]"]),
        (
            ["check", "--help"],
            [
                "right on each array library",
                "pullback.check_pair",
                "--backend",
                "Example: pullback check --backend dask",
            ],
        ),
        (["backends", "-h"], ["Usage: pullback backends", "the command that installs the library"]),
    ],
)
def test_help(arguments: list[str], expected: list[str]) -> None:
    printed = text(run(*arguments))
    for words in expected:
        assert words in printed


def test_version() -> None:
    assert run("--version") == (0, f"pullback {pullback.__version__}\n", "")


def test_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pullback", "--version"])
    with pytest.raises(SystemExit, match="0"):
        app.main()
    assert capsys.readouterr().out == f"pullback {pullback.__version__}\n"


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_extra_is_missing(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without(monkeypatch, name)
    with pytest.raises(SystemExit, match="2"):
        app.main()
    line = f'pullback: {name} is not installed; get it with: pip install "typer>=0.15" "rich>=13.7"\n'
    assert capsys.readouterr() == ("", line)


def test_import_needs_no_extra() -> None:
    code = """if True:
        import sys
        sys.modules |= dict.fromkeys(["numpy", "rich", "sklearn", "typer"])
        from pullback._cli.app import main
        main()
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    line = 'pullback: typer is not installed; get it with: pip install "typer>=0.15" "rich>=13.7"\n'
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)


@ALL_BACKENDS
def test_backends() -> None:
    result = run("backends")
    assert result.status == 0
    assert result.stderr == ""
    table = rows(result.stdout)
    assert table.keys() == FILES.keys()
    for name in CPU:
        module, version, usable, device = table[name][:4]
        assert module == FILES[name]["import"]
        assert version[0].isdigit()
        assert usable == "yes"
        assert device.lower().startswith("cpu")


@ALL_BACKENDS
def test_backends_fit_80_columns() -> None:
    table, _, _ = run("backends").stdout.partition(" is not ")
    assert "DASK_DEVICE" not in table
    assert max(len(line) for line in table.splitlines()) <= 80


@ALL_BACKENDS
def test_backend_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "dask")
    result = run("backends")
    assert result.status == 0
    assert rows(result.stdout)["dask"] == ["dask.array", "not", "installed", "no"]
    assert 'dask is not installed; get it with: pip install "dask[array]>=2025.1"\n' in result.stdout


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy as it is without a GPU: it imports, and raises on the first array."""

    def asarray(*_: object, **_options: object) -> NoReturn:
        msg = "cudaErrorNoDevice: no CUDA-capable device is detected"
        raise RuntimeError(msg)

    cupy: Any = ModuleType("cupy")
    cupy.__version__, cupy.float32, cupy.asarray = "14.0.0", np.float32, asarray
    monkeypatch.setitem(sys.modules, "cupy", cupy)


@ALL_BACKENDS
@pytest.mark.usefixtures("no_gpu")
def test_backend_has_no_device() -> None:
    reason = "cupy is not usable: RuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected\n"
    result = run("backends")
    assert result.status == 0
    assert rows(result.stdout)["cupy"] == ["cupy", "14.0.0", "no"]
    assert reason in result.stdout
    result = run("demo", "--backend", "cupy")
    assert result == (2, "", f"pullback demo: {reason}")


def test_backend_breaks_when_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lame.py").write_text("import leg_of_lame")
    monkeypatch.syspath_prepend(tmp_path)
    state = backends.look(backends.Backend("lame", "lame", ["lame"]))
    assert state == ("unknown", None, (), "not usable: ModuleNotFoundError: No module named 'leg_of_lame'")


def test_backends_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pullback" / "backends"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('import = "mine.array"\nrequires = ["mine>=1", "other"]')
    monkeypatch.setattr(backends, "__file__", str(folder.parent / "_cli" / "backends.py"))
    (mine,) = backends.known().values()
    assert mine == ("mine", "mine.array", ["mine>=1", "other"], True)
    assert mine.install == 'pip install "mine>=1" "other"'


@pytest.fixture(scope="module")
def everything() -> Outcome:
    """`pullback demo` as a new user runs it."""
    return run("demo")


@ALL_BACKENDS
def test_demo(everything: Outcome) -> None:
    assert everything.status == 0
    assert everything.stderr == ""
    first, *_, agree, cost, last = everything.stdout.splitlines()
    assert first == "150 steps on 1,437 images of digits in float32, then a test on 360 others:"
    assert agree == "All agree: rounding alone explains a difference of up to 1.8e-04."
    assert cost.startswith("Dask takes milliseconds for each step")
    assert last.startswith("Read next: docs/guides/own-functions.md")
    for page in ("own-functions.md", "large-batches.md"):
        assert page in last
        assert (Path(__file__).parents[2] / "docs" / "guides" / page).exists()
    assert max(len(line) for line in everything.stdout.partition("Left out")[0].partition("All")[0].splitlines()) <= 80


def test_demo_names_what_its_blocks_need(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "zarr")
    result = run("demo", "--backend", "dask")
    assert result.status == 2
    line = 'pullback demo: dask is not usable: zarr is not installed; get it with: pip install "dask[array]>=2025.1" '
    assert result.stderr.startswith(line)


@ALL_BACKENDS
@pytest.mark.parametrize("name", CPU)
def test_demo_agrees(name: str, everything: Outcome) -> None:
    _version, device, loss, accuracy, difference, seconds = rows(everything.stdout)[name]
    assert device.lower().startswith("cpu")
    assert float(loss) == pytest.approx(0.0902, abs=1e-4)
    assert float(accuracy) >= 0.96
    assert float(difference) <= 2e-5
    assert float(seconds) > 0


@pytest.mark.usefixtures("no_gpu")
def test_demo_leaves_out_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: backends.known()[name] for name in ("cupy", "numpy")}
    monkeypatch.setattr(backends, "known", lambda: few)
    result = run("demo")
    assert result.status == 0
    assert "Left out: cupy is not usable: RuntimeError: cudaErrorNoDevice" in result.stdout
    assert rows(result.stdout).keys() == {"numpy"}
    assert "All agree" not in result.stdout


@ALL_BACKENDS
def test_demo_runs_what_was_asked_for(everything: Outcome) -> None:
    result = run("demo", "-b", "array-api-strict", "--backend", "numpy", "--backend", "array-api-strict")
    assert result.status == 0
    table = rows(result.stdout)
    assert list(table) == ["numpy", "array-api-strict"]
    # The same numbers each time, on the same library: all but the seconds.
    assert table["numpy"][:-1] == rows(everything.stdout)["numpy"][:-1]


def test_demo_shows_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("demo", "--backend", "numpy")
    assert result.status == 0
    assert "100%" in result.stderr
    assert "100%" not in result.stdout


def test_demo_computes_once_a_step_on_dask() -> None:
    graphs = []

    def count(graph: Any, keys: Any, **options: Any) -> Any:
        graphs.append(graph)
        return dask.threaded.get(graph, keys, **options)

    xp = backends.look(backends.known()["dask"]).namespace
    with dask.config.set(scheduler=count):
        result = demo.run(xp, demo.read_digits(), range(5))
    # Before the steps one for the zeros, and after them one for both scores.
    assert len(graphs) == 1 + 5 + 1
    assert 0 < result.loss < np.log(10)


def test_demo_with_an_unknown_backend() -> None:
    result = run("demo", "--backend", "numpy", "--backend", "tensorflow")
    line = f"pullback demo: tensorflow is none of the backends, which are {', '.join(sorted(FILES))}\n"
    assert result == (2, "", line)


def test_demo_with_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    result = run("demo", "--backend", "torch")
    line = 'pullback demo: torch is not installed; get it with: pip install "torch>=2.13"\n'
    assert result == (2, "", line)


def test_demo_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "sklearn")
    result = run("demo")
    line = 'pullback demo: sklearn is not installed; get it with: pip install "numpy>=2.1" "scikit-learn>=1.6"\n'
    assert result == (2, "", line)


def test_demo_finds_a_gradient_that_is_wrong_by_one_in_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(z: Any, *others: Any, **options: Any) -> Any:
        found: Any = loss_and_gradients(z, *others, **options)
        return found if isinstance(z, np.ndarray) else found._replace(dw=found.dw * 1.001)

    monkeypatch.setattr(demo, "loss_and_gradients", broken)
    result = run("demo", "--backend", "array-api-strict")
    assert result.status == 1
    assert rows(result.stdout).keys() == {"numpy", "array-api-strict"}
    assert "All agree" not in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("pullback demo: array-api-strict disagrees with numpy: the weights differ by ")
    assert line.endswith(", rounding explains 1.8e-04")


def test_demo_finds_that_too_little_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_RATE", 1e-9)
    result = run("demo", "--backend", "numpy")
    assert result.status == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("pullback demo: numpy learned too little: test accuracy 0.")
    assert line.endswith(", at least 0.94 is expected")


def test_nan_is_a_fault() -> None:
    result: Any = SimpleNamespace(accuracy=float("nan"))
    assert len(demo.faults(result, float("nan"))) == 2


def cells(printed: str) -> list[list[str]]:
    """Return the rows of the table of `pullback check`."""
    return [line.split() for line in printed.splitlines() if line.endswith((" yes", " no"))]


@pytest.mark.parametrize(
    "name",
    # Coverage, which doubles the time, is the same on all of them.
    [pytest.param(name, marks=[] if name == "numpy" else pytest.mark.no_cover) for name in CPU],
)
def test_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pullback check` of a backend: every pair has findings, and they hold; of Dask, on which one takes a second, few.

    The tests of the pairs hold every pair to its values on Dask, and to computing nothing.
    """
    pairs = PAIRS[::4] if name == "dask" else PAIRS
    monkeypatch.setattr(commands, "PAIRS", pairs)
    result = run("check", "--backend", name)
    assert result.status == 0
    assert result.stderr == ""
    first, *_, last = result.stdout.splitlines()
    assert first == "The largest error that each law found, as a part of its tolerance:"
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    table = {pair: row for backend, pair, *row in cells(result.stdout) if backend == name}
    assert last == f"All {sum(int(row[3]) for row in table.values()):,} findings hold."
    assert list(table) == [pair.name for pair in pairs]
    for pair in pairs:
        adjoint, difference, double, findings, holds = table[pair.name]
        assert float(difference) < 1
        assert (adjoint == "-") == (pair.jvp is None)
        assert (double == "-") == (pair.double_backward is None and pair.hessian_product is None)
        # Of two real dtypes at least, unless the library is told to have but one: an output, a gradient and purity.
        assert int(findings) >= 5
        assert holds == "yes"


def test_check_runs_what_was_asked_for() -> None:
    result = run("check", "-b", "array-api-strict", "--backend", "numpy", "--backend", "array-api-strict")
    assert result.status == 0
    assert list(dict.fromkeys(row[0] for row in cells(result.stdout))) == ["array-api-strict", "numpy"]


@pytest.mark.usefixtures("no_gpu")
def test_check_leaves_out_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: backends.known()[name] for name in ("cupy", "numpy")}
    monkeypatch.setattr(backends, "known", lambda: few)
    result = run("check")
    assert result.status == 0
    assert {row[0] for row in cells(result.stdout)} == {"numpy"}
    assert "Left out: cupy is not usable: RuntimeError: cudaErrorNoDevice" in result.stdout
    monkeypatch.setattr(backends, "known", lambda: {"cupy": few["cupy"]})
    line = "pullback check: cupy is not usable: RuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected\n"
    assert run("check") == (2, "", line)


def test_check_shows_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("check", "--backend", "numpy")
    assert result.status == 0
    assert "100%" in result.stderr
    assert "100%" not in result.stdout


def test_check_with_an_unknown_backend() -> None:
    result = run("check", "--backend", "numpy", "--backend", "tensorflow")
    line = f"pullback check: tensorflow is none of the backends, which are {', '.join(sorted(FILES))}\n"
    assert result == (2, "", line)


def test_check_with_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    result = run("check", "--backend", "torch")
    line = 'pullback check: torch is not installed; get it with: pip install "torch>=2.13"\n'
    assert result == (2, "", line)


def test_check_finds_a_gradient_that_is_wrong_by_one_in_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(da: Any, z: Any, w: Any) -> Any:
        gradients: Any = affine_backward(da, z, w)
        return gradients._replace(dw=gradients.dw * 1.01)

    affine, matmul, *_ = PAIRS
    monkeypatch.setattr(commands, "PAIRS", [replace(affine, backward=broken, double_backward=None), matmul])
    result = run("check", "--backend", "array-api-strict")
    assert result.status == 1
    assert [(row[1], row[-1]) for row in cells(result.stdout)] == [("affine", "no"), ("matmul", "yes")]
    assert "findings hold" not in result.stdout
    lines = result.stderr.splitlines()
    told = r"pullback check: array-api-strict: affine in \w+ breaks the {}: got -?[\d.]+, expected -?[\d.]+, error "
    for finding in ("adjoint identity of dw", "adjoint identity of dz, dw, db", "central difference of dw"):
        assert len([line for line in lines if re.match(told.format(finding), line)]) == 4
    assert len(lines) == 12


def test_check_of_a_pair_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> NoReturn:
        msg = "out of\nmemory"
        raise RuntimeError(msg)

    loss = PAIRS[-1]
    monkeypatch.setattr(commands, "PAIRS", [replace(loss, forward=broken)])
    result = run("check", "--backend", "numpy")
    assert result.status == 1
    assert cells(result.stdout) == [["numpy", loss.name, "-", "-", "-", "0", "no"]]
    assert result.stderr == "".join(
        f"pullback check: numpy: {loss.name} in {dtype} raises RuntimeError: out of memory\n"
        for dtype in ("float32", "float64")
    )
