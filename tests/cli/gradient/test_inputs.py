"""The files that the command reads: what is wrong with them is said in one line, before or during the run."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pullback.dask
from pullback._cli.gradient import files
from tests.harness.gradient_command import (
    FILL,
    POWERLESS,
    check,
    fault,
    finish,
    follow,
    gradient,
    left,
    save,
    start,
    to_zarr,
)


def test_file_is_gone() -> None:
    save()
    rows = files.open_file(Path("z.npy"))[slice(3, 5), slice(None)]
    Path("z.npy").unlink()
    with pytest.raises(OSError, match=r"z\.npy: rows \[3:5\] cannot be read: .*No such file"):
        np.asarray(rows)


@pytest.mark.parametrize(
    "options", [{}, {"shards": (200, 7)}, {"zarr_format": 2}], ids=["chunks", "shards", "version 2"]
)
def test_rejects_a_store_with_lost_chunks(options: dict[str, Any]) -> None:
    save()
    to_zarr("z", chunks=(100, 7), **options)
    lost = Path("z.zarr", "3.0" if "zarr_format" in options else "c/3/0")
    lost.unlink()
    kind, count, row = ("shards", 5, 600) if "shards" in options else ("chunks", 10, 300)
    line = f"1 of {count} {kind} of {Path.cwd()}/z.zarr are not stored"
    result = gradient(z="z.zarr")
    fault(result, 2, line, f"the first of them {lost.absolute()}, ", "; copy the store again, or give --fill-missing")
    assert left() == {"z.zarr"}
    result = gradient(FILL, z="z.zarr")
    assert (result.status, result.stderr) == (0, f"pullback gradient: {line} and count as 0.0\n")
    z = np.load("z.npy")
    z[row : row + 1_000 // count] = 0
    np.save("z.npy", z)
    check("dz", "dw", "db")


@pytest.mark.parametrize("options", [(), (FILL,)], ids=["", "fill"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.mkdir, "c/4/0 must be a regular file; it is a folder; copy the store again"),
        (os.mkfifo, "c/4/0 must be a regular file; it is a pipe; copy the store again"),
        (lambda path: path.symlink_to(path.name), "c/4/0 cannot be read: Too many levels of symbolic links"),
    ],
    ids=["folder", "pipe", "link"],
)
def test_rejects_a_chunk_that_is_no_file(spoil: Callable[[Path], None], words: str, options: tuple[str, ...]) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    chunk = Path("z.zarr/c/4/0")
    chunk.unlink()
    spoil(chunk)
    fault(gradient(*options, z="z.zarr"), 2, words)


def overwrite(path: Path) -> None:
    """Write a byte that was there before."""
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(byte)


def exchange(path: Path) -> None:
    """Replace a file by another with the same contents."""
    new = path.with_name("new")
    shutil.copy2(path, new)
    new.replace(path)


@pytest.mark.parametrize("change", [overwrite, exchange])
@pytest.mark.parametrize("when", ["before it is read", "after it is read"])
@pytest.mark.parametrize(
    ("name", "part"), [("z.npy", ""), ("da.zarr", "c/4/0"), ("da.zarr", "zarr.json"), ("w.npy", "")]
)
def test_input_changes_during_the_run(
    name: str, part: str, when: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(m=3_000)
    to_zarr("da", chunks=(100, 3))
    path = Path(name, part)

    def change_it(*results: Any, **options: Any) -> Any:
        if when == "before it is read":
            change(path)
        out = pullback.dask.compute(*results, **options)
        if when == "after it is read":
            change(path)
        return out

    monkeypatch.setattr("pullback._cli.gradient.run.compute", change_it)
    result = gradient(upstream="da.zarr")
    fault(result, 1, f"{path.absolute()} was replaced or written to while the command ran", "out.zarr was not written")
    assert left() == {"da.zarr"}


def garbage() -> None:
    Path("z.npy").write_bytes(b"not an array, whatever its name is")


def pickled() -> None:
    np.save("z.npy", np.asarray([{}], dtype=object), allow_pickle=True)


def cut_off() -> None:
    os.truncate("z.npy", 20_000)


def a_folder() -> None:
    Path("z.npy").unlink()
    Path("z.npy").mkdir()


def a_group() -> None:
    a_folder()
    group = zarr.create_group("z.npy")
    group.create_array("mine", shape=(4, 7), dtype="f4")
    group.create_group("deeper").create_group("still").create_array("yours", shape=(4, 7), dtype="f4")


def a_pipe() -> None:
    Path("z.npy").unlink()
    os.mkfifo("z.npy")


def a_loop() -> None:
    Path("z.npy").unlink()
    Path("z.npy").symlink_to("z.npy")


def header(text: str, version: tuple[int, int] = (1, 0)) -> Callable[[], None]:
    """Return what writes a file with this header, and data that fit one of shape (100, 7) in float32."""

    def write() -> None:
        length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
        Path("z.npy").write_bytes(b"\x93NUMPY" + bytes(version) + length + text.encode() + bytes(2_800))

    return write


def described(shape: str, dtype: str = "<f4") -> str:
    """Return the text of a header."""
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path("z.npy").unlink, ["z.npy does not exist"]),
        (garbage, ["z.npy is neither an .npy file nor the folder of a Zarr array: the magic string is not correct"]),
        (pickled, ["z.npy holds pickled Python objects", "save an array of numbers"]),
        (cut_off, ["z.npy is cut off: its header promises 28,128 bytes, and there are 20,000"]),
        (a_folder, ["z.npy is a folder, but not that of a Zarr array"]),
        (a_group, ["z.npy is a group of Zarr arrays; give the folder of one of them: deeper/still/yours, mine"]),
        (a_pipe, ["z.npy must be an .npy file or the folder of a Zarr array; it is a pipe; save the array to a file"]),
        (a_loop, ["z.npy cannot be read: Too many levels of symbolic links"]),
        (header(described("(100, 7")), ["z.npy has a damaged header: ", "; save it again with numpy.save"]),
        (header(described("(-100, 7)")), ["z.npy has a damaged header: its shape is (-100, 7); save it again"]),
        (
            header(described("(100, 7)"), (4, 0)),
            ["z.npy has version 4.0 of the .npy format; the versions 1.0, 2.0, 3.0"],
        ),
        (header("{'descr': '<f4'"), ["npy has a damaged header: ", ""]),
        (header(described("(np.int64(100), 7)", "|O")), ["has a damaged header: "]),
        (partial(np.save, "z.npy", np.ones(7)), ["z.npy must hold rows", "got shape (7,)"]),
        (partial(np.save, "z.npy", np.ones((1_000, 6))), ["the last axis of z must equal the first", "(1000, 6)"]),
        (partial(np.save, "z.npy", np.ones((999, 7))), ["the same rows", "array 1 has 999 rows", "(999, 7)"]),
        (partial(np.save, "da.npy", np.ones((1_000, 4))), ["da must have the shape of the output", "(1000, 4)"]),
        (partial(np.save, "w.npy", np.ones((7, 3, 1))), ["w must be a matrix", "(7, 3, 1)"]),
    ],
    ids=lambda x: " ".join(x)[:30].replace("/", "") if isinstance(x, list) else "",
)
def test_inputs_are_wrong(spoil: Callable[[], object], words: list[str]) -> None:
    save()
    spoil()
    fault(gradient(), 2, *words)
    assert left() == set()


@pytest.mark.parametrize(("kind", "dtype"), [("npy", "int64"), ("npy", "longdouble"), ("zarr", "int64")])
def test_rejects_other_numbers_and_names_the_cast(kind: str, dtype: str) -> None:
    save()
    np.save("z.npy", np.arange(7_000).reshape(1_000, 7).astype(dtype))
    name, target = np.load("z.npy").dtype, "float32" if dtype == "int64" else "float64"
    if kind == "zarr":
        to_zarr("z", chunks=(100, 7))
    result = gradient("--plan", z=f"z.{kind}")
    fault(result, 2, f"z.{kind} must hold floating numbers, float16, ", f"; got {name}; cast them first: python -c ")
    follow(result.stderr)
    cast: Any = zarr.open_array(f"z-{target}.zarr", mode="r")
    assert cast.dtype == target
    assert np.array_equal(cast[...], np.load("z.npy"))
    assert gradient(z=f"z-{target}.zarr").status == 0


@pytest.mark.parametrize("dtype", ["U5", str, "M8[s]", "f4,i4"], ids=["fixed", "string", "date", "record"])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_rejects_what_is_no_number(dtype: Any) -> None:
    save()
    zarr.create_array("z.zarr", shape=(1_000, 7), dtype=dtype)
    fault(gradient("--plan", z="z.zarr"), 2, "z.zarr must hold floating numbers, float16", "; save an array of one of")


def test_header_with_numpy_scalars_is_repaired() -> None:
    save()
    z = np.load("z.npy")
    for order in "CF":
        with Path("z.npy").open("wb") as file:
            text = described("(np.int64(1000), np.uint8(7))").replace("False", str(order == "F"))
            file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + z.tobytes(order))
        result = gradient()
        fault(
            result,
            2,
            "z.npy has np.int64(1000) in its header, which is not a part of the .npy format; write it again: ",
        )
        follow(result.stderr)
        assert np.array_equal(np.load("z-fixed.npy"), z)


def test_file_may_not_be_read() -> None:
    save()
    Path("z.npy").chmod(0)
    fault(finish(start(limit=POWERLESS)), 2, "z.npy cannot be read: Permission denied")


@pytest.mark.parametrize("damage", [b"", b"no chunk"], ids=["empty", "garbage"])
def test_chunk_is_corrupt(damage: bytes) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    Path("z.zarr/c/4/0").write_bytes(damage)
    result = gradient(z="z.zarr")
    fault(result, 1, "z.zarr: rows [0:1000] cannot be read: ", "out.zarr was not written: put that right")
    assert left() == {"z.zarr"}


def test_file_becomes_shorter() -> None:
    save()
    file = files.open_file(Path("z.npy")).unchecked()
    os.truncate("z.npy", 20_000)
    assert np.asarray(file[slice(0, 700), slice(None)]).shape == (700, 7)
    with pytest.raises(OSError, match=r"z\.npy: rows \[700:800\] cannot be read: the file ends before them"):
        np.asarray(file[slice(700, 800), slice(None)])


@pytest.mark.parametrize("seed", range(25))
def test_damaged_header_is_an_error_or_read(seed: int) -> None:
    save()
    rng = np.random.default_rng(seed)
    damaged = bytearray(Path("z.npy").read_bytes())
    for place in rng.integers(0, 128, 3):
        damaged[place] = rng.choice(np.frombuffer(b"\0\n'(),-0123456789:<>FTbcdefi|{}~\xff", np.uint8))
    Path("z.npy").write_bytes(damaged)
    result = gradient("--plan")
    if result.status:
        fault(result, 2)
    else:
        assert files.open_file(Path("z.npy")).shape[0] == 1_000


def test_file_of_another_machine_is_read_without_a_check() -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    file = files.open_file(Path("z.zarr")).unchecked()
    exchange(Path("z.zarr/c/4/0"))
    rows: Any = file[slice(390, 410), slice(None)]
    assert np.array_equal(rows, np.load("z.npy")[390:410])
