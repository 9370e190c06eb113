"""Tars between us and an engine: what is sent, and that nothing hostile gets out of what comes back."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.errors import EngineRefusedError, JobError, PreflightError
from rdagent_ft.execution.docker_archives import OutputTooLargeError, pack, read_single, unpack
from rdagent_ft.execution.docker_trees import list_items

BOUNDS = {"max_bytes": 1 << 20, "max_entries": 1000}


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, root: bool = True) -> bytes:
    """A tar of files (name, content) below `job`, and of headers as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if root:
            archive.addfile(header("job", tarfile.DIRTYPE))
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = header(member[0], tarfile.REGTYPE)
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def header(name: str, kind: bytes, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755
    for key, value in values.items():
        setattr(info, key, value)
    return info


def in_pieces(content: bytes, n_bytes: int = 1000) -> Iterator[bytes]:
    return (content[at : at + n_bytes] for at in range(0, len(content), n_bytes))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "weights.bin").write_bytes(os.urandom(3_000_001))
    (source / "run.sh").write_text("true")
    (source / "run.sh").chmod(0o700)
    (source / ("long-" * 40)).write_text("a name longer than old headers hold")
    os.utime(source / "sub", (1_700_000_000, 1_700_000_000))
    os.utime(source / "run.sh", (1_700_000_001, 1_700_000_001))
    items = list_items(source, follow_links_out=False)
    stream = pack("job", items, user=(4321, 1234), root_unix=5)
    content = b"".join(stream)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {(m.uid, m.gid) for m in archive} == {(4321, 1234)}
        assert archive.getmember("job").mtime == 5
        assert oct(archive.getmember("job/run.sh").mode) == oct(0o755)
    done = unpack(in_pieces(content), "job", tmp_path / "back", max_bytes=1 << 22, max_entries=100)
    assert (done.n_files, done.n_skipped) == (3, 0)
    assert everything(tmp_path / "back") == everything(source)
    for name in ("sub/weights.bin", "run.sh"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    for name, mode in (("run.sh", 0o755), ("sub/weights.bin", 0o644), ("sub", 0o755)):
        status = (tmp_path / "back" / name).lstat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, os.getuid())
    assert (tmp_path / "back" / "sub").stat().st_mtime == 1_700_000_000
    assert (tmp_path / "back" / "run.sh").stat().st_mtime == 1_700_000_001


def test_a_file_that_changed_after_it_was_listed_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("one")
    items = list_items(tmp_path, follow_links_out=False)
    (tmp_path / "data").write_text("another")
    with pytest.raises(JobError, match="changed while"):
        list(pack("job", items, user=(0, 0), root_unix=0))
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("/etc/hostname")
    with pytest.raises(JobError, match="cannot be read"):
        list(pack("job", items, user=(0, 0), root_unix=0))


@pytest.mark.parametrize(
    "odd",
    [
        header("job/link", tarfile.SYMTYPE, linkname="/etc/passwd"),
        header("job/up", tarfile.SYMTYPE, linkname="../../.."),
        header("job/hard", tarfile.LNKTYPE, linkname="/etc/passwd"),
        header("job/hard", tarfile.LNKTYPE, linkname="job/kept"),
        header("job/fifo", tarfile.FIFOTYPE),
        header("job/device", tarfile.CHRTYPE, devmajor=1, devminor=3),
        header("job/disk", tarfile.BLKTYPE, devmajor=8),
        header("job/strange", b"Z"),
        header("job/new\nline", tarfile.REGTYPE),
        header("job/\udcff", tarfile.REGTYPE),
        header("job/" + "n" * 300, tarfile.REGTYPE),
        header("job" + "/d" * 40, tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.type!r} {info.name[:12]!r}",
)
def test_what_is_no_plain_file_is_left_out_and_the_rest_is_kept(tmp_path: Path, odd: tarfile.TarInfo) -> None:
    content = tar_of(("job/kept", b"one"), odd, ("job/after", b"two"))
    done = unpack(in_pieces(content), "job", tmp_path / "back", **BOUNDS)
    assert done.n_skipped == 1
    assert everything(tmp_path / "back") == ["after", "kept"]


def test_a_file_below_a_link_of_the_same_archive_is_written_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = header("job/out", tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    content = tar_of(link, ("job/out/file", b"escaped"))
    unpack(in_pieces(content), "job", tmp_path / "back", **BOUNDS)
    assert everything(tmp_path / "outside") == []
    assert not (tmp_path / "back" / "out").is_symlink()
    assert (tmp_path / "back" / "out" / "file").read_bytes() == b"escaped"


@pytest.mark.parametrize(
    "name",
    ["/etc/evil", "../evil", "job/../evil", "job/a/../../evil", "other/evil", "evil", "//job/evil", "."],
)
def test_an_archive_that_names_another_place_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineRefusedError, match="outside of the folder"):
        unpack(in_pieces(tar_of((name, b"x"))), "job", tmp_path / "back", **BOUNDS)
    assert everything(tmp_path) == ["back"]


@pytest.mark.parametrize(
    "members",
    [
        (("job/a", b"1"), ("job/a", b"2")),
        (("job/a", b"1"), ("job/a/b", b"2")),
        (("job/a/b", b"1"), ("job/a", b"2")),
    ],
)
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, members: tuple[tuple[str, bytes], ...]) -> None:
    with pytest.raises(EngineRefusedError, match="twice"):
        unpack(in_pieces(tar_of(*members)), "job", tmp_path / "back", **BOUNDS)


def test_bytes_and_entries_are_bounded_before_they_are_written(tmp_path: Path) -> None:
    huge = header("job/huge", tarfile.REGTYPE, size=10 << 40)
    cut = tar_of(("job/small", b"x"), huge)[: -2 * 512]
    with pytest.raises(OutputTooLargeError, match="bytes"):
        unpack(in_pieces(cut), "job", tmp_path / "a", **BOUNDS)
    assert everything(tmp_path / "a") == ["small"]
    several = tar_of(*((f"job/{n}", bytes(600_000)) for n in range(2)))
    with pytest.raises(OutputTooLargeError, match="bytes"):
        unpack(in_pieces(several), "job", tmp_path / "b", **BOUNDS)
    device = header("job/device", tarfile.CHRTYPE, size=10 << 40)
    with pytest.raises(OutputTooLargeError, match="bytes"):
        unpack(in_pieces(tar_of(device)), "job", tmp_path / "c", **BOUNDS)


def test_a_million_entries_end_at_the_bound_and_in_bounded_memory(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield header("job", tarfile.DIRTYPE).tobuf()
        for n in range(1_000_000):
            yield header(f"job/{n}", tarfile.FIFOTYPE).tobuf()

    pieces = endless()
    tracemalloc.start()
    with pytest.raises(OutputTooLargeError, match="more than 5000 files"):
        unpack(pieces, "job", tmp_path / "back", max_bytes=1, max_entries=5_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert next(pieces)  # the rest was never read


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_an_extended_header_without_end_is_refused(tmp_path: Path, kind: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield header("job", kind, size=7 << 30).tobuf(tarfile.GNU_FORMAT)
        for _ in range(7 << 10):
            yield bytes(1 << 20)

    pieces = endless()
    with pytest.raises(EngineRefusedError, match="header of unlikely size"):
        unpack(pieces, "job", tmp_path / "back", **BOUNDS)
    assert next(pieces)


def test_headers_that_only_announce_headers_are_refused(tmp_path: Path) -> None:
    chain = b"".join(header("x", tarfile.XGLTYPE, size=0).tobuf(tarfile.GNU_FORMAT) for _ in range(5000))
    with pytest.raises(EngineRefusedError):
        unpack(in_pieces(chain), "job", tmp_path / "back", **BOUNDS)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "old"])
def test_sparse_members_are_refused(tmp_path: Path, version: str) -> None:
    info = header("job/sparse", tarfile.REGTYPE)
    if version == "old":
        info.type = tarfile.GNUTYPE_SPARSE
    elif version == "1.0":
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(1 << 40),
        }
        info.size = 512
    elif version == "0.1":
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    else:
        info.pax_headers = {
            "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1",
            "GNU.sparse.offset": "0", "GNU.sparse.numbytes": "1",
        }  # fmt: skip
    content = info.tobuf(tarfile.GNU_FORMAT if version == "old" else tarfile.PAX_FORMAT)
    content += b"1\n0\n1\n".ljust(512, b"\0") + bytes(1024)
    with pytest.raises((EngineRefusedError, OutputTooLargeError)):
        unpack(in_pieces(content), "job", tmp_path / "back", **BOUNDS)
    assert everything(tmp_path / "back") == []


def test_a_cut_archive_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    content = tar_of(("job/a", b"1" * 700), ("job/b", b"2" * 100), ("job/c", b"3"))
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    for n_bytes in range(0, end + 1, 256):
        with pytest.raises(EngineRefusedError):
            unpack(in_pieces(content[:n_bytes]), "job", tmp_path / str(n_bytes), **BOUNDS)
    assert unpack(in_pieces(content[: end + 1024]), "job", tmp_path / "whole", **BOUNDS).n_files == 3


def test_an_error_of_the_engine_in_the_stream_is_no_end(tmp_path: Path) -> None:
    content = tar_of(("job/a", b"1"))[: 3 * 512]
    said = b'{"message":"the disk is gone"}\n'.ljust(512)
    with pytest.raises(EngineRefusedError, match="damaged or cut off"):
        unpack(in_pieces(content + said), "job", tmp_path / "back", **BOUNDS)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_archives_write_nothing_outside(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    long = "n" * 150
    whole = bytearray(
        tar_of(
            ("job/a", b"1" * 700), header("job/l", tarfile.SYMTYPE, linkname="/etc"), (f"job/{long}", b"22"),
            header("job/é", tarfile.REGTYPE, pax_headers={"comment": "x"}), ("job/s/b", b"3"),
        )
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) // 512 - 1)) * 512
        damage = data.draw(st.sampled_from(["field", "byte", "size"]))
        if damage == "field":
            field, width = data.draw(st.sampled_from([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1)]))
            whole[at + field : at + field + width] = data.draw(st.binary(min_size=width, max_size=width))
        elif damage == "size":
            whole[at + 124 : at + 136] = b"%011o\0" % data.draw(st.integers(0, 5000))
        else:
            whole[at + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # a damage that the checksum does not show
            block = whole[at : at + 512]
            total = 256 + sum(block[:148]) + sum(block[156:])
            whole[at + 148 : at + 156] = b"%06o\0 " % total
    folder = tmp_path_factory.mktemp("damaged")
    with contextlib.suppress(EngineRefusedError, OutputTooLargeError):
        unpack(in_pieces(bytes(whole), 333), "job", folder / "back", **BOUNDS)
    assert [path.name for path in folder.iterdir()] == ["back"]
    for path in (folder / "back").rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert stat.S_IMODE(mode) in {0o644, 0o755, 0o600}


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=4096))
def test_noise_is_refused(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("noise")
    if any(noise[:512]) or len(noise) < 512:
        with pytest.raises(EngineRefusedError):
            unpack(in_pieces(noise), "job", folder / "back", **BOUNDS)
    assert read_is_refused(noise)


def read_is_refused(noise: bytes) -> bool:
    try:
        return read_single(in_pieces(noise), 100) is None
    except EngineRefusedError:
        return True


def test_a_full_disk_of_ours_is_no_fault_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(PreflightError, match="No space left"):
        unpack(in_pieces(tar_of(("job/a", b"1"))), "job", tmp_path / "back", **BOUNDS)


def test_a_single_file_is_read_up_to_its_bound() -> None:
    assert read_single(in_pieces(tar_of(("m.jsonl", b"{}\n"), root=False)), 3) == b"{}\n"
    assert read_single(in_pieces(tar_of(("m.jsonl", b"{}\n"), root=False)), 2) is None
    link = header("m.jsonl", tarfile.SYMTYPE, linkname="/etc/passwd")
    assert read_single(in_pieces(tar_of(link, root=False)), 100) is None
    assert read_single(in_pieces(tar_of(root=True)), 100) is None
