"""The safetensors reader and writer: exact round trips, and only one kind of error for whatever a file may contain."""

import errno
import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyllm import safetensors
from tinyllm.errors import CheckpointError

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


arrays = st.sampled_from(DTYPES).flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(max_size=5).filter(lambda n: n != "__metadata__"), arrays, max_size=5))
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("round") / "m.safetensors"
    safetensors.save(path, tensors, {"format": "pt", "é": "ü"})
    loaded, metadata = safetensors.load(path)
    assert metadata == {"format": "pt", "é": "ü"}
    assert set(loaded) == set(tensors)
    assert all(same(loaded[name], tensors[name]) for name in tensors)
    assert all(array.flags.writeable for array in loaded.values())


def test_strides_and_byte_order_do_not_show_in_the_file(tmp_path, rng):
    x = rng.normal(size=(4, 6))
    variants = [x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x.astype(">f8")]
    for i, variant in enumerate(variants):
        safetensors.save(tmp_path / str(i), {"x": variant})
    assert len({(tmp_path / str(i)).read_bytes() for i in range(len(variants))}) == 1


def test_equal_contents_give_equal_bytes(tmp_path, rng):
    tensors = {"b": rng.normal(size=3), "a": np.arange(5, dtype="i1"), "c": np.ones(2, "f4")}
    safetensors.save(tmp_path / "1", tensors, {"x": "1", "y": "2"})
    safetensors.save(tmp_path / "2", dict(reversed(tensors.items())), {"y": "2", "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_every_tensor_is_aligned_to_its_item_size(tmp_path):
    tensors = {"a": np.zeros(3, "u1"), "b": np.zeros(5, "f8"), "c": np.zeros(1, "f2"), "d": np.zeros(3, "f4")}
    safetensors.save(tmp_path / "m", tensors)
    header, start = split((tmp_path / "m").read_bytes())
    assert start % 8 == 0
    assert all((start + header[n]["data_offsets"][0]) % a.itemsize == 0 for n, a in tensors.items())


def test_bfloat16_is_widened(tmp_path):
    values = np.array([1.5, -2.0, 0.0, 3e38, np.inf], "f4")
    upper = (values.view("u4") >> 16).astype("<u2")
    header = {"x": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}
    (tmp_path / "m").write_bytes(join(header, upper.tobytes()))
    x = safetensors.load(tmp_path / "m")[0]["x"]
    assert x.dtype == np.float32
    assert same(x, (upper.astype("u4") << 16).view("f4"))
    assert x[0] == 1.5


@pytest.mark.parametrize(
    "array", [np.zeros(2, complex), np.array(["a"]), np.array([None]), [1.0, 2.0], np.longdouble(1)]
)
def test_what_the_format_lacks_is_refused_by_name(tmp_path, array):
    with pytest.raises(TypeError, match="'w'"):
        safetensors.save(tmp_path / "m", {"w": array})
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_key_is_no_tensor(tmp_path):
    with pytest.raises(TypeError, match="__metadata__"):
        safetensors.save(tmp_path / "m", {"__metadata__": np.zeros(1)})
    with pytest.raises(TypeError, match="strings"):
        safetensors.save(tmp_path / "m", {}, {"step": 3})


# -- damaged files -----------------------------------------------------------------------------------------------------


def join(header, values=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def split(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def tensor(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


X, Y = tensor(), tensor(offsets=(8, 16))
DAMAGED = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"1234567", "7 bytes"),
    "header beyond the end": ((1 << 40).to_bytes(8, "little") + b"{}", "byte 0"),
    "not a header": (b"\xff" * 64, "byte 0"),
    "not UTF-8": (join(b'{"\xff": 1}'), "byte 10: .*UTF-8"),
    "not JSON": (join(b'{"x": }     '), "byte 14: .*JSON"),
    "no object": (join([1, 2]), "object"),
    "deep": (join(b"[" * 200_000), "byte 8"),
    "a name twice": (join(b'{"x": 1, "x": 2}'), "'x' comes twice"),
    "a number of many digits": (join(b'{"x": ' + b"9" * 5000 + b"}"), "byte 8"),
    "metadata of numbers": (join({"__metadata__": {"step": 3}}), "__metadata__"),
    "metadata a list": (join({"__metadata__": []}), "__metadata__"),
    "an entry that is a number": (join({"x": 3}), "'x'"),
    "an entry without a shape": (join({"x": {"dtype": "F32", "data_offsets": [0, 0]}}), "'x'"),
    "an entry with more": (join({"x": tensor(stride=3)}, bytes(8)), "'x'"),
    "unknown dtype": (join({"x": tensor("F8_E4M3", (8,))}, bytes(8)), "F8_E4M3"),
    "dtype a list": (join({"x": tensor([])}, bytes(8)), "dtype"),
    "negative length": (join({"x": tensor(shape=(-2,))}, bytes(8)), "shape"),
    "boolean length": (join({"x": tensor(shape=(True, 2))}, bytes(8)), "shape"),
    "fractional length": (join({"x": tensor(shape=(2.0,))}, bytes(8)), "shape"),
    "too many axes": (join({"x": tensor(shape=(1,) * 99 + (2,))}, bytes(8)), "shape"),
    "backward offsets": (join({"x": tensor(offsets=(8, 0))}, bytes(8)), "data_offsets"),
    "three offsets": (join({"x": tensor(offsets=(0, 4, 8))}, bytes(8)), "data_offsets"),
    "size of another shape": (join({"x": tensor(shape=(3,))}, bytes(8)), "needs 12 bytes"),
    "product that overflows": (join({"x": tensor(shape=(2**33, 2**31))}, bytes(8)), "needs"),
    "empty and impossible": (join({"x": tensor(shape=(0, 2**62, 2**62), offsets=(0, 0))}), "impossible"),
    "overlap": (join({"x": X, "y": tensor(offsets=(4, 12))}, bytes(12)), "'y' overlaps"),
    "twice the same bytes": (join({"x": X, "y": X}, bytes(8)), "overlaps"),
    "hole": (join({"x": X, "y": tensor(offsets=(12, 20))}, bytes(20)), "'y' leaves"),
    "hole at the start": (join({"y": Y}, bytes(16)), "'y' leaves"),
    "cut off": (join({"x": X, "y": Y}, bytes(15)), "cut off"),
    "values beyond the end": (join({"x": tensor("F32", (2**40,), (0, 2**42))}), "cut off"),
    "more than the tensors": (join({"x": X}, bytes(9)), "belongs to no tensor"),
    "boolean 2": (join({"x": tensor("BOOL", (1,), (0, 1))}, b"\x02"), "booleans"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, what):
    data, match = DAMAGED[what]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=match) as error:
        safetensors.load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 7000


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        safetensors.load(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        safetensors.load(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "m"
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype="i4"), "c": np.array([True, False])}
    safetensors.save(path, tensors, {"format": "pt"})
    return path.read_bytes()


def test_cut_anywhere_it_is_refused(tmp_path, whole):
    for n in range(len(whole)):
        (tmp_path / "m").write_bytes(whole[:n])
        with pytest.raises(CheckpointError):
            safetensors.load(tmp_path / "m")


@settings(max_examples=2000)
@given(st.data())
def test_mutated_files_give_the_one_error_or_load(tmp_path_factory, whole, data):
    mutant = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        kind, at = data.draw(st.sampled_from(["set", "insert", "delete"])), data.draw(st.integers(0, len(mutant) - 1))
        if kind == "set":
            mutant[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            mutant[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif len(mutant) > 1:
            del mutant[at]
    path = tmp_path_factory.getbasetemp() / "mutant"
    path.write_bytes(mutant)
    try:
        tensors, _ = safetensors.load(path)
    except CheckpointError:
        return
    assert sum(array.nbytes for array in tensors.values()) <= 2 * len(mutant)


# -- writing: whole or not at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "number", "said"),
    [("fsync", errno.ENOSPC, "disk is full"), ("replace", errno.EACCES, "Permission denied")],
)
def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch, broken, number, said):
    path = tmp_path / "m.safetensors"
    safetensors.save(path, {"x": np.arange(3)})
    before = path.read_bytes()

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(CheckpointError, match=f"{said}.*old file is unchanged"):
        safetensors.save(path, {"x": np.zeros(1000)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_named(tmp_path):
    os.symlink("/dev/full", tmp_path / ".m.part")
    with pytest.raises(CheckpointError, match="disk is full"):
        safetensors.save(tmp_path / "m", {"x": np.zeros(100_000)})
    assert list(tmp_path.iterdir()) == []


def test_an_error_within_the_block_removes_the_part_and_is_passed_on(tmp_path):
    def write_half():
        with safetensors.replacing(tmp_path / "m") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_no_folder_to_write_in(tmp_path):
    with pytest.raises(CheckpointError, match="No such file or directory"):
        safetensors.save(tmp_path / "none" / "m", {})


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / ".m.part").write_bytes(b"x" * 10_000)
    safetensors.save(tmp_path / "m", {"x": np.arange(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert same(safetensors.load(tmp_path / "m")[0]["x"], np.arange(3))


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "m"
    safetensors.save(path, {"x": np.zeros(1000)})
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            safetensors.save(path, {"x": np.full(1000 + n, float(n))})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            x = safetensors.load(path)[0]["x"]
            assert (x == x[0]).all()
            assert len(x) == 1000 + x[0]
    finally:
        stop.set()
        writer.join()


@pytest.mark.peers
def test_the_safetensors_package_reads_ours_and_we_read_its(tmp_path, rng):
    peer = pytest.importorskip("safetensors.numpy", reason="the safetensors package is not installed")
    tensors = {f"t.{d}": rng.integers(0, 2, size=(2, 3)).astype(d) for d in DTYPES}
    tensors["empty"], tensors["scalar"] = np.zeros((0, 3)), np.array(2.5)
    safetensors.save(tmp_path / "ours", tensors, {"format": "pt"})
    theirs = peer.load_file(tmp_path / "ours")
    assert all(same(theirs[name], tensors[name]) for name in tensors)
    peer.save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    ours, metadata = safetensors.load(tmp_path / "theirs")
    assert metadata == {"format": "pt"}
    assert all(same(ours[name], tensors[name]) for name in tensors)


@pytest.mark.peers
def test_bfloat16_of_torch(tmp_path, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    peer = pytest.importorskip("safetensors.torch", reason="the safetensors package is not installed")
    x = torch.tensor(rng.normal(size=(5, 7))).to(torch.bfloat16)
    peer.save_file({"x": x}, tmp_path / "m")
    assert same(safetensors.load(tmp_path / "m")[0]["x"], x.float().numpy())
