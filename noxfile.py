"""The matrix: a test session for each file in backends/, and what surrounds it. `nox -l` lists all of it."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True
nox.options.tags = ["cpu"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
BACKENDS: dict[str, dict[str, Any]] = {
    path.stem: tomllib.loads(path.read_text()) for path in sorted(Path("backends").glob("*.toml"))
}
# The tests that have a session of their own.
APART = {
    "demo": ["tests/cli/test_app.py"],
    "docs": ["tests/test_readme.py", "tests/test_docs.py"],
    "large": ["tests/dask", "tests/cli/gradient", "tests/cli/test_streams.py"],
    "peers": ["tests/peers"],
}
# Every pair, every law and every transform once: what the lowest versions are held to.
CORE = [
    *("tests/core", "tests/testing/test_check.py", "tests/ops/test_affine.py", "tests/ops/test_pairs.py"),
    *("tests/ops/test_losses.py", "tests/ops/test_activations.py", "tests/ops/test_per_example.py"),
    *("tests/autodiff/test_transforms.py", "tests/autodiff/test_pairs.py", "tests/autodiff/test_traced.py"),
]
LAWS = [f"--ignore={path}" for paths in APART.values() for path in paths]
CPU = [name for name, backend in BACKENDS.items() if "cpu" in backend["tags"]]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def interpreter(name: str) -> str | None:
    """Return the Python that a backend needs, None where the one that runs nox will do."""
    versions: list[str] = BACKENDS[name]["python"]
    return None if f"{sys.version_info.major}.{sys.version_info.minor}" in versions else versions[-1]


def laws(session: nox.Session, name: str, *more: str) -> None:
    """Run the laws on one backend, and save their coverage."""
    environment = {"COVERAGE_FILE": f".coverage.{session.name}.{name}", **BACKENDS[name].get("environment", {})}
    # On all cores, but a whole file on one: what JAX has compiled for a test serves the next.
    options = [f"--backend={name}", "--numprocesses=auto", "--dist=loadfile", "--cov", "--cov-report=", *more]
    session.run("pytest", *options, *LAWS, *session.posargs, env=environment)


def add_tests(name: str, backend: dict[str, Any]) -> None:
    """Make the session `tests(name)`."""

    def tests(session: nox.Session) -> None:
        session.install(".", *backend["requires"], *group("test"))
        laws(session, name)

    tests.__doc__ = f"Run the laws on {backend['title']}."
    python, installer = interpreter(name), backend.get("installer")
    tags = [*backend["tags"], *(["quick"] if name == "numpy" else [])]
    nox.session(name=f"tests({name})", python=python, venv_backend=installer, tags=tags)(tests)


for entry in BACKENDS.items():
    add_tests(*entry)


@nox.session(tags=["cpu"])
def minimums(session: nox.Session) -> None:
    """Run the core of the laws on the lowest versions allowed, in one mode of each library."""
    lowest = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    tested = [name for name in CPU if "minimums" in BACKENDS[name]]
    pins = {pin for name in tested for pin in BACKENDS[name]["minimums"]}
    session.install(".", *lowest, *sorted(pins), *group("test"))
    for name in tested:
        laws(session, name, "--one-mode", *CORE)


@nox.session(name="cupy-dry", tags=["cpu"])
def cupy_dry(session: nox.Session) -> None:
    """Bind every call of the laws to CuPy's signatures; needs no GPU."""
    session.install(".", *BACKENDS["cupy"]["requires"], *group("test"))
    session.run(
        "pytest", "--backend=strict", "-p", "tests.harness.cupy_dry", "--ignore=tests/autodiff", *LAWS, *session.posargs
    )


# pip, because PyTorch is among them: see backends/torch.toml.
@nox.session(python=interpreter("torch"), venv_backend="virtualenv", tags=["cpu"])
def demo(session: nox.Session) -> None:
    """Test the command with every CPU backend installed, then run `pullback demo`."""
    session.install(".[demo]", *(x for name in CPU for x in BACKENDS[name]["requires"]), *group("test"))
    session.run("pytest", "--cov", "--cov-report=", *APART["demo"], env={"COVERAGE_FILE": ".coverage.demo"})
    session.run("pullback", "demo")


@nox.session(python=interpreter("torch"), venv_backend="virtualenv", tags=["cpu"])
def examples(session: nox.Session) -> None:
    """Run the scripts of examples/, which check what they find; they draw their pictures for the docs."""
    session.install(".[examples]", *(x for name in CPU for x in BACKENDS[name]["requires"]))
    for path in sorted(Path("examples").glob("*.py")):
        session.run("python", str(path), f"--output={session.create_tmp()}/{path.stem}.svg")


@nox.session(python=interpreter("torch"), venv_backend="virtualenv", tags=["cpu"])
def large(session: nox.Session) -> None:
    """Test batches larger than memory, on threads and on a cluster."""
    blocks = [*BACKENDS["torch"]["requires"], *BACKENDS["jax"]["requires"]]
    session.install(".[cli,cluster]", *blocks, *group("test"))
    session.run("pytest", "--cov", "--cov-report=", *APART["large"], env={"COVERAGE_FILE": ".coverage.large"})


@nox.session(python=interpreter("torch"), venv_backend="virtualenv", tags=["cpu"])
def peers(session: nox.Session) -> None:
    """Compare with what other libraries compute; check that a result has their arrays' type to mypy."""
    needed = [*BACKENDS["torch"]["requires"], *BACKENDS["jax"]["requires"], *group("peers"), *group("test")]
    needed += group("types")
    session.install(".", *needed)
    # BackPACK asks for torchvision, which it does not import, and which would bring a PyTorch of its own.
    session.install("--no-deps", *group("backpack"))
    session.run("pytest", *APART["peers"])
    session.run("mypy", "--config-file=tests/peers/mypy.ini")


@nox.session(tags=["cpu", "quick"])
def doctest(session: nox.Session) -> None:
    """Run the examples of the docstrings."""
    session.install(".[demo,cluster]", *group("test"))
    session.run("pytest", "--doctest-modules", "--pyargs", "pullback", *session.posargs)


@nox.session(tags=["cpu"])
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html, open its pages, and run its code and the README's."""
    session.install(".[cluster,examples]", *group("docs"), *group("test"))
    session.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix=docs/node")
    for make in ("clean", "html"):
        session.run("sphinx-build", "-M", make, "docs", "docs/_build", "--fail-on-warning", "--keep-going")
    session.run("pytest", *APART["docs"])


@nox.session(tags=["cpu", "quick"])
def lint(session: nox.Session) -> None:
    """Check style and format with Ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(tags=["cpu", "quick"])
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    session.install(".[demo]", *group("types"), *group("test"))
    session.run("mypy")


@nox.session(tags=["cpu"])
def coverage(session: nox.Session) -> None:
    """Fail where a branch of src was run by no session before."""
    session.install(*group("test"))
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=100")


@nox.session(tags=["cpu"])
def guard(session: nox.Session) -> None:
    """Fail where the speed relative to plain NumPy is half of that in the committed run of the benchmarks."""
    session.install(".", *group("guard"))
    session.run("python", "-m", "benchmarks", "--only=guard", *session.posargs)


# No Python has wheels of all peers: PyTorch's own is where backends/torch.toml says, and advect needs a newer one.
@nox.session(python=[BACKENDS["torch"]["python"][-1], "3.12"], venv_backend="virtualenv")
def bench(session: nox.Session) -> None:
    """Measure speed, accuracy and memory of this package and others, an hour long; --save=FOLDER saves the results."""
    if session.python == "3.12":
        session.install(".", *group("bench-advect"))
        parts = ["--peer=advect", "--only=affine", "--only=accuracy", "--only=memory"]
    else:
        session.install(".[demo,cluster]", *group("bench"))
        parts = []
    session.run("python", "-m", "benchmarks", *parts, *session.posargs)
