"""The second wall around a scored program: a seccomp filter, as bytes for `prctl`. Standard library only.

All programs of a job share one container and one user, so the container alone would let one of them
kill the job, fill its folder or rewrite the others' results. With this filter a program may compute,
read and print, and no more: no new processes, no signals, no writing to files, no sockets, no hold on
another process. It protects the job and its other programs; the machine is the container's work.

Refused calls fail with EPERM, so the program sees a `PermissionError`. A list of what is refused stays
right only for calls that exist: calls newer than `LAST_KNOWN` do not exist for a program (ENOSYS).
Covers x86_64 and aarch64. Numbers are those of Linux 6.17.
"""

from __future__ import annotations

import errno
import platform
import struct

LAST_KNOWN = 469
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_WRITE_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_SIGNAL_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals without a call of `kill`
_SIGNAL_IOCTLS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP

_ARCHES: dict[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> AUDIT_ARCH_ value, column of the tables below."""

Numbers = dict[str, tuple[int | None, int | None]]
REFUSED: Numbers = {
    # new processes and programs
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # signals
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "setpriority": (141, 140), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # files: whatever changes a name, an owner, a right or a time
    "creat": (85, None), "truncate": (76, 45), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88),
    "futimesat": (261, None), "file_setattr": (469, 469),
    # memory that RLIMIT_AS does not count, and channels between programs
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "socket": (41, 198),
    # further doors into the kernel, most of them closed by the container already
    "io_uring_setup": (425, 425), "bpf": (321, 280), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "move_mount": (429, 429),
    "mount_setattr": (442, 442), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "open_by_handle_at": (304, 265),
}  # fmt: skip
"""Calls that fail with EPERM whatever their arguments: name -> number on x86_64, on aarch64."""

JUDGED: Numbers = {
    "clone": (56, 220), "clone3": (435, 435), "open": (2, None), "openat": (257, 56),
    "openat2": (437, 437), "fcntl": (72, 25), "ioctl": (16, 29), "prlimit64": (302, 261),
}  # fmt: skip
"""Calls whose arguments decide. The arguments of `clone3` and `openat2` cannot be seen: ENOSYS, after
which the C library uses the older call."""


def filter_bytes(machine: str | None = None) -> bytes:
    """Return the filter as an array of `struct sock_filter`, 8 bytes each.

    Raises `OSError` for a machine (default: this one) that the tables do not cover.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHES:
        raise OSError(errno.ENOSYS, f"no filter of system calls is known for {machine}")
    arch, column = _ARCHES[machine]
    code = [_load(_ARCH_AT), _jump(_JUMP_EQUAL, arch, 1, 0), _end(_KILL), _load(_NUMBER_AT)]
    code += [_jump(_JUMP_AT_LEAST, LAST_KNOWN + 1, 0, 1), _refuse(errno.ENOSYS)]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            code += [_jump(_JUMP_EQUAL, number, 0, 1), _refuse()]
    for name, numbers in JUDGED.items():
        number = numbers[column]
        if number is not None:
            verdict = _judgement(name)
            code += [_jump(_JUMP_EQUAL, number, 0, len(verdict)), *verdict]
    return b"".join([*code, _end(_ALLOW)])


def _judgement(name: str) -> list[bytes]:
    """Return the instructions that end in a verdict about one call."""
    if name in {"clone3", "openat2"}:
        return [_refuse(errno.ENOSYS)]
    if name == "clone":
        return [_argument(0), _jump(_JUMP_BITS, _CLONE_THREAD, 1, 0), _refuse(), _end(_ALLOW)]
    if name in {"open", "openat"}:
        flags = _argument(1 if name == "open" else 2)
        return [flags, _jump(_JUMP_BITS, _WRITE_FLAGS, 0, 1), _refuse(), _end(_ALLOW)]
    if name == "prlimit64":  # of itself only
        return [_argument(0), _jump(_JUMP_EQUAL, 0, 1, 0), _refuse(), _end(_ALLOW)]
    refused = _SIGNAL_OWNERS if name == "fcntl" else _SIGNAL_IOCTLS
    tests = [part for word in refused for part in (_jump(_JUMP_EQUAL, word, 0, 1), _refuse())]
    return [_argument(1), *tests, _end(_ALLOW)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _argument(index: int) -> bytes:
    """Load the low half of an argument; both machines are little-endian."""
    return _load(_ARGUMENTS_AT + 8 * index)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return _instruction(code, value, if_true, if_false)


def _end(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _refuse(number: int = errno.EPERM) -> bytes:
    return _end(_ERRNO | number)
