"""The matrix: a test session for each file in backends/, and what surrounds it. `nox -l` lists all of it."""

import os
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True
nox.options.tags = ["cpu"]
# Bytecode that no process may write is compiled again in each of them, for 3 seconds and more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# pip would compile every module, in two thirds of its time. Python compiles those it imports.
os.environ["PIP_COMPILE"] = "0"

PYPROJECT = nox.project.load_toml("pyproject.toml")
BACKENDS: dict[str, dict[str, Any]] = {
    path.stem: tomllib.loads(path.read_text()) for path in sorted(Path("backends").glob("*.toml"))
}
# The tests that have a session of their own.
APART = {
    "consumers": ["tests/consumers"],
    "demo": ["tests/cli/test_app.py"],
    "docs": ["tests/test_readme.py", "tests/test_docs.py"],
    "large": ["tests/dask", "tests/cli/gradient", "tests/cli/test_streams.py"],
    "peers": ["tests/peers"],
}
# Every pair, every law and every transform once: for the lowest versions, and libraries with tests = "core".
FAMILIES = ("affine", "matmul", "forms", "quadratic", "activations", "losses", "per_example", "moments")
CORE = [
    *(f"tests/ops/test_{family}.py::test_dtypes" for family in FAMILIES),
    *(
        "tests/ops/test_pairs.py",
        "tests/core/test_dtypes.py",
        "tests/core/test_stable.py",
        "tests/testing/test_check.py",
        "tests/harness/test_backend.py",
    ),
    *("tests/autodiff/test_transforms.py", "tests/autodiff/test_pairs.py", "tests/autodiff/test_traced.py"),
]
COVERAGE = ["--cov", "--cov-report="]
# On all cores. A test that waits for ever ends its worker and fails the run: in a new worker it would wait again.
PARALLEL = ["--numprocesses=auto", "--max-worker-restart=0"]
LAWS = [f"--ignore={path}" for paths in APART.values() for path in paths]
CPU = [name for name, backend in BACKENDS.items() if "cpu" in backend["tags"]]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def interpreter(name: str) -> str | None:
    """Return the Python that a backend needs, None where the one that runs nox will do."""
    versions: list[str] = BACKENDS[name]["python"]
    return None if f"{sys.version_info.major}.{sys.version_info.minor}" in versions else versions[-1]


def tested(name: str) -> list[str]:
    """Return what the tests install of a backend."""
    versions: list[str] = BACKENDS[name].get("pinned", BACKENDS[name]["requires"])
    return versions


def chosen_tests(name: str) -> list[str]:
    """Return the tests that a backend is held to, where they are not all."""
    tests: str | list[str] = BACKENDS[name].get("tests", [])
    return CORE if tests == "core" else list(tests)


def install(session: nox.Session, package: str, *requirements: str) -> None:
    """Install requirements, and this package from the checkout: an old copy of it is never tested, not even by -R."""
    session.install(package, *requirements)
    session.run("python", "-m", "pip", "install", "--quiet", "--no-deps", ".")


def run_in_dev(session: nox.Session, *command: str, env: dict[str, str] | None = None) -> None:
    """Run a command in the environment of the session `dev`, which has this package in editable form."""
    place = session.cache_dir.parent / "dev" / "bin"
    path = {"PATH": os.pathsep.join([str(place), os.environ["PATH"]])}
    session.run(str(place / command[0]), *command[1:], env={**path, **(env or {})}, external=True)


def run_apart(session: nox.Session, *options: str) -> None:
    """Run the tests of a session of its own, and save their coverage."""
    environment = {"COVERAGE_FILE": f".coverage.{session.name}"}
    run_in_dev(session, "pytest", *options, *COVERAGE, *APART[session.name], env=environment)


def laws(name: str, *more: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment that run the laws on one backend."""
    # JAX runs a whole file on one core: what it has compiled for a test serves the next.
    options = [f"--backend={name}", *PARALLEL, f"--dist={'loadfile' if name == 'jax' else 'worksteal'}", *more]
    return ["pytest", *options, *LAWS], dict(BACKENDS[name].get("environment", {}))


def add_tests(name: str, backend: dict[str, Any]) -> None:
    """Make the session `tests(name)`. NumPy has an environment of its own, which proves that nothing else is needed."""
    alone = name == "numpy" or "cpu" not in backend["tags"]

    def tests(session: nox.Session) -> None:
        command, environment = laws(name, *COVERAGE, *chosen_tests(name))
        environment["COVERAGE_FILE"] = f".coverage.{session.name}"
        if alone:
            # The blocks of the guide on GPUs, which run with CuPy, need Dask.
            install(session, ".[dask]" if "gpu" in backend["tags"] else ".", *tested(name), *group("test"))
            # A driver that an environment brings is named by the place of that environment.
            environment = {x: y.format(prefix=session.virtualenv.location) for x, y in environment.items()}
            session.run(*command, *session.posargs, env=environment)
        else:
            run_in_dev(session, *command, *session.posargs, env=environment)

    tests.__doc__ = f"Run the laws on {backend['title']}."
    tags = [*backend["tags"], *(["quick"] if name == "numpy" else [])]
    place: dict[str, Any] = {"python": interpreter(name)} if alone else IN_DEV
    nox.session(name=f"tests({name})", tags=tags, **place)(tests)


def add_gpu_tests(name: str, backend: dict[str, Any]) -> None:
    """Make the session `gpu(name)` of a library whose tests run on the CPU otherwise."""

    def gpu(session: nox.Session) -> None:
        install(session, ".", *backend["gpu"]["requires"], *group("test"))
        command, environment = laws(name, f"--device={backend['gpu']['device']}")
        session.run(*command, *session.posargs, env=environment)

    gpu.__doc__ = f"Run the laws on {backend['title']} on a GPU."
    nox.session(name=f"gpu({name})", tags=["gpu"])(gpu)


@nox.session(python=interpreter("torch"), venv_backend="virtualenv", reuse_venv=True, default=False)
def dev(session: nox.Session) -> None:
    """Make .nox/dev: this package in editable form, every CPU backend and all tools. Most sessions run in it."""
    libraries = [x for name in CPU for x in tested(name)]
    tools = [x for name in ("test", "docs", "peers", "consumers", "lint", "types", "guard") for x in group(name)]
    session.install("--editable", ".[cluster,examples]", *libraries, *tools)
    # BackPACK asks for torchvision, which it does not import, and which would bring a PyTorch of its own.
    session.install("--no-deps", *group("backpack"))


IN_DEV: dict[str, Any] = {"python": False, "requires": ["dev"]}

for title, library in BACKENDS.items():
    add_tests(title, library)
    if "gpu" in library:
        add_gpu_tests(title, library)


@nox.session(tags=["cpu"])
def minimums(session: nox.Session) -> None:
    """Run the core of the laws on the lowest versions allowed, in one mode of each library.

    Without coverage: what it runs of the package, the sessions on newer versions run, too.
    """
    lowest = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    chosen = [name for name in CPU if "minimums" in BACKENDS[name]]
    pins = {pin for name in chosen for pin in BACKENDS[name]["minimums"]}
    install(session, ".", *lowest, *sorted(pins), *group("test"))
    for name in chosen:
        command, environment = laws(name, "--one-mode", *CORE)
        session.run(*command, env=environment)


@nox.session(name="dask-newest", python=interpreter("torch"), venv_backend="virtualenv", default=False)
def dask_newest(session: nox.Session) -> None:
    """Run the laws and the tests of large batches on the newest Dask, release candidates included."""
    newest = ["--pre", "--upgrade", "dask[array]", "distributed"]
    session.install(".[cli,cluster]", *tested("jax"), *tested("torch"), *group("test"))
    install(session, ".", *newest)
    command, environment = laws("dask")
    session.run(*command, *session.posargs, env=environment)
    session.run("pytest", *PARALLEL, "--dist=loadgroup", "tests/dask", *session.posargs)


@nox.session(name="cupy-dry", tags=["cpu"])
def cupy_dry(session: nox.Session) -> None:
    """Bind every call of the laws to CuPy's signatures; needs no GPU."""
    install(session, ".", *BACKENDS["cupy"]["requires"], *group("test"))
    options = ["--backend=strict", "-p", "tests.harness.cupy_dry", *PARALLEL, "--one-mode"]
    session.run("pytest", *options, "--ignore=tests/autodiff", *LAWS, *session.posargs)


@nox.session(tags=["cpu"], **IN_DEV)
def demo(session: nox.Session) -> None:
    """Test the command with every CPU backend installed, then run `pullback demo`."""
    run_apart(session, *PARALLEL, "--dist=loadgroup")
    run_in_dev(session, "pullback", "demo", "--backend=numpy")


@nox.session(tags=["cpu"], **IN_DEV)
def examples(session: nox.Session) -> None:
    """Run the examples, one of them on all CPU backends, and draw the pictures that `docs` shows."""
    run_in_dev(session, "python", "docs/extensions/pictures.py")


@nox.session(tags=["cpu"], **IN_DEV)
def large(session: nox.Session) -> None:
    """Test batches larger than memory, on threads and on a cluster."""
    run_apart(session, *PARALLEL, "--dist=loadgroup")


@nox.session(tags=["cpu"], **IN_DEV)
def peers(session: nox.Session) -> None:
    """Compare with what other libraries compute; check that a result has their arrays' type to mypy."""
    run_apart(session, *PARALLEL, "--dist=loadfile")
    run_in_dev(session, "mypy", "--config-file=tests/peers/mypy.ini")


@nox.session(**IN_DEV)
@nox.parametrize(
    "libraries",
    [
        nox.param(("numpy", "dask"), id="core", tags=["cpu"]),
        nox.param(("numpy", "strict", "torch", "dask"), id="all"),
    ],
)
def consumers(session: nox.Session, libraries: tuple[str, ...]) -> None:
    """Differentiate what SciPy, scikit-learn, array_api_extra and einops do with arrays, call by call."""
    for name in libraries:
        # Set before SciPy is imported: without it SciPy converts all arrays to NumPy's.
        mode = [] if BACKENDS[name]["lazy"] else ["--one-mode"]
        options = [f"--backend={name}", *mode, *APART["consumers"], *session.posargs]
        run_in_dev(session, "pytest", *options, env={"SCIPY_ARRAY_API": "1"})


@nox.session(tags=["cpu", "quick"], **IN_DEV)
def doctest(session: nox.Session) -> None:
    """Run the examples of the docstrings."""
    run_in_dev(session, "pytest", "--doctest-modules", "--pyargs", "pullback", *session.posargs)


@nox.session(tags=["cpu"], **IN_DEV)
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html, open its pages, and run its code and the README's."""
    run_in_dev(session, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix=docs/node")
    for folder in ("html", "doctrees"):  # the pictures of the examples stay
        shutil.rmtree(Path("docs", "_build", folder), ignore_errors=True)
    run_in_dev(session, "sphinx-build", "-M", "html", "docs", "docs/_build", "--fail-on-warning", "--keep-going")
    run_in_dev(session, "pytest", *PARALLEL, "--dist=loadgroup", *APART["docs"])


@nox.session(tags=["cpu", "quick"])
def lint(session: nox.Session) -> None:
    """Check style and format with Ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(tags=["cpu", "quick"], **IN_DEV)
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    run_in_dev(session, "mypy")


@nox.session(tags=["cpu"], **IN_DEV)
def coverage(session: nox.Session) -> None:
    """Fail where a branch of src was run by no session before."""
    run_in_dev(session, "coverage", "combine")
    run_in_dev(session, "coverage", "report", "--fail-under=100")


@nox.session(tags=["cpu"], **IN_DEV)
def guard(session: nox.Session) -> None:
    """Fail where the speed relative to plain NumPy is half of that in the committed run of the benchmarks."""
    run_in_dev(session, "python", "-m", "benchmarks", "--only=guard", *session.posargs)


# No Python has wheels of all peers: PyTorch's own is where backends/torch.toml says, and advect needs a newer one.
@nox.session(python=[BACKENDS["torch"]["python"][-1], "3.12"], venv_backend="virtualenv")
def bench(session: nox.Session) -> None:
    """Measure speed, accuracy and memory of this package and others, an hour long; --save=FOLDER saves the results."""
    if session.python == "3.12":
        install(session, ".", *group("bench-advect"))
        parts = ["--peer=advect", "--only=affine", "--only=accuracy", "--only=memory", "--only=tape"]
    else:
        install(session, ".[demo,cluster]", *group("bench"), *group("consumers"), *group("test"))
        parts = []
    session.run("python", "-m", "benchmarks", *parts, *session.posargs)
